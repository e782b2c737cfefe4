import { describe, expect, test } from "bun:test";
import { isExempt, proxyFor, readProxy } from "./proxy-env.ts";

const target = { host: "controller.example", port: 50056 };

describe("the proxy", () => {
  test("comes from the config, else HTTPS_PROXY, else https_proxy, and an empty variable is none", () => {
    const of = (settings: { httpsProxy?: string }, env: Record<string, string>) => proxyFor(target, settings, env);
    expect(of({}, {})).toBeNull();
    expect(of({}, { https_proxy: "http://lower:1" })).toMatchObject({
      host: "lower",
      port: 1,
      secure: false,
      from: "https_proxy",
    });
    expect(of({}, { HTTPS_PROXY: "http://upper:2", https_proxy: "http://lower:1" })?.host).toBe("upper");
    expect(of({}, { HTTPS_PROXY: "", https_proxy: "http://lower:1" })?.host).toBe("lower");
    expect(of({ httpsProxy: "http://own:3" }, { HTTPS_PROXY: "http://upper:2" })?.from).toBe(
      "cluster.edge.proxy.https_proxy",
    );
    expect(of({ httpsProxy: "" }, { HTTPS_PROXY: "http://upper:2" })).toBeNull();
    expect(of({}, { HTTP_PROXY: "http://plain:4", ALL_PROXY: "http://all:5" })).toBeNull();
  });

  test("may be written with or without scheme, port, user and brackets", () => {
    expect(readProxy("proxy:3128", "X")).toMatchObject({ secure: false, host: "proxy", port: 3128, auth: null });
    expect(readProxy("https://proxy", "X")).toMatchObject({ secure: true, port: 443 });
    expect(readProxy("http://proxy", "X").port).toBe(80);
    expect(readProxy("http://[fd00::1]:8080", "X")).toMatchObject({ host: "fd00::1", port: 8080 });
    const { auth } = readProxy("http://ann:p%40ss%3Aword@proxy:1", "X");
    expect(auth?.reveal()).toBe("ann:p@ss:word");
    expect(JSON.stringify(auth)).toBe('"[redacted]"');
  });

  test("that cannot be one is refused by the name of its variable, and a password is not repeated", () => {
    expect(() => readProxy("socks5://proxy:1080", "HTTPS_PROXY")).toThrow("HTTPS_PROXY asks for socks5");
    expect(() => readProxy("http://ann:secret@:99999", "HTTPS_PROXY")).toThrow(
      /^HTTPS_PROXY is not an address of a proxy$/,
    );
  });
});

describe("NO_PROXY", () => {
  const cases: [entry: string, host: string, exempt: boolean][] = [
    ["*", "anything.at.all", true],
    ["", "controller.example", false],
    ["controller.example", "controller.example", true],
    ["controller.example", "CONTROLLER.Example.", true],
    ["example", "controller.example", true],
    [".example", "controller.example", true],
    ["*.example", "controller.example", true],
    ["ample", "controller.example", false],
    ["controller.example.org", "controller.example", false],
    ["other, controller.example", "controller.example", true],
    ["other controller.example", "controller.example", true],
    ["controller.example:50056", "controller.example", true],
    ["controller.example:443", "controller.example", false],
    ["10.0.0.0/8", "10.9.8.7", true],
    ["10.0.0.0/8", "11.0.0.1", false],
    ["10.0.0.0/99", "10.9.8.7", false],
    ["10.0.0.0/8", "10.example", false],
    ["10.1.2.3", "10.1.2.3", true],
    ["10.1.2.3", "10.1.2.30", false],
    ["1.2.3", "10.1.2.3", false],
    ["fd00::/8", "fd12::1", true],
    ["fd00::/8", "[fd12::1]", true],
    ["fd12:0:0::1", "fd12::1", true],
    ["[fd12::1]:50056", "fd12::1", true],
    ["[fd12::1]:443", "fd12::1", false],
    ["::ffff:10.0.0.1", "10.0.0.1", true],
    ["localhost", "127.0.0.1", false],
  ];
  for (const [entry, host, exempt] of cases)
    test(`${JSON.stringify(entry)} ${exempt ? "exempts" : "does not exempt"} ${host}`, () => {
      expect(isExempt({ host, port: 50056 }, entry)).toBe(exempt);
      const env = { HTTPS_PROXY: "http://proxy:1", NO_PROXY: entry };
      expect(proxyFor({ host, port: 50056 }, {}, env) === null).toBe(exempt);
    });

  test("of the config wins over the environment's", () => {
    const env = { HTTPS_PROXY: "http://proxy:1", NO_PROXY: "*" };
    expect(proxyFor(target, { noProxy: "other" }, env)?.host).toBe("proxy");
  });
});
