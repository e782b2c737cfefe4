/** What a controller's operator types beside it: tenants, backups, the audit; and files and jobs on hosts. Through the executable. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { eventually } from "./support/aegis.ts";
import { type Host, installation, jsonOf as json } from "./support/installation.ts";

setDefaultTimeout(60_000);

const site = await installation();
const { server, desk } = site;
let host: Host;
beforeAll(async () => {
  host = await site.addHost("web-1", { enroll: ["--full-access"] });
});
afterAll(() => site.close());

const sha256 = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

describe("edge cp", () => {
  const cp = (...words: string[]) => desk.run("edge", "cp", ...words);
  const there = (name: string) => join(host.home, "files", name);
  const on = (name: string) => `operator@web-1:${there(name)}`;
  const here = (name: string) => join(desk.home, name);
  const large = 2_000_000;
  beforeAll(() => {
    mkdirSync(there(""), { recursive: true });
    writeFileSync(here("large"), randomBytes(large));
    writeFileSync(here("empty"), "");
  });

  test("copies a file of many pieces there and back, byte for byte, with its permissions", async () => {
    chmodSync(here("large"), 0o640);
    const up = await cp("large", on(""));
    expect(up).toMatchObject({ exit: 0, stdout: "", stderr: expect.stringContaining(`${large} bytes, sha256`) });
    expect([sha256(there("large")), statSync(there("large")).mode & 0o777]).toEqual([sha256(here("large")), 0o640]);
    expect((await cp(on("large"), "back")).exit).toBe(0);
    expect(sha256(here("back"))).toBe(sha256(here("large")));
    for (const folder of [there(""), desk.home])
      expect(readdirSync(folder).filter((name) => name.endsWith(".aegis-part"))).toEqual([]);
  });

  test("an empty file is a file, and a folder takes it under its name", async () => {
    expect((await cp("empty", on(""))).exit).toBe(0);
    expect(statSync(there("empty")).size).toBe(0);
    mkdirSync(here("folder"));
    expect((await cp(on("empty"), "folder")).exit).toBe(0);
    expect(statSync(here("folder/empty")).size).toBe(0);
  });

  test("sizes at the edges of a piece and names that a shell would trip over come through in both directions", async () => {
    const pieces = [512 * 1024, 768 * 1024];
    const odd: [name: string, bytes: number][] = [
      ...pieces.flatMap((piece) => [-1, 0, 1].map((more): [string, number] => [`${piece + more} bytes`, piece + more])),
      ["-rf", 3],
      [" lead, 'quote' \"double\" $(touch x) `y` * ? [z] \\n", 3],
      ["ünï-中文-\u202e-😀", 3],
      ["two\nlines", 3],
    ];
    for (const [name, bytes] of odd) {
      writeFileSync(here(name), randomBytes(bytes));
      const up = await cp(here(name), on(""));
      expect({ name, exit: up.exit, said: up.exit === 0 ? "" : up.stderr }).toEqual({ name, exit: 0, said: "" });
      expect([name, sha256(there(name))]).toEqual([name, sha256(here(name))]);
      expect((await cp(on(name), here("odd back"))).exit).toBe(0);
      expect([name, sha256(here("odd back"))]).toEqual([name, sha256(here(name))]);
    }
    expect(existsSync(here("x"))).toBe(false);
  });

  test("a source that changes while it is copied is no copy, and what was there stays", async () => {
    writeFileSync(there("grows"), randomBytes(8_000_000));
    writeFileSync(here("kept"), "as it was");
    const running = desk.start("edge", "cp", on("grows"), here("kept"));
    await eventually("it copies", () => existsSync(here("kept.aegis-part")));
    writeFileSync(there("grows"), randomBytes(8_000_000));
    const { exit, stderr } = await running.ended;
    expect([exit, stderr]).toEqual([1, expect.stringContaining("grows changed while it was copied")]);
    expect(readFileSync(here("kept"), "utf8")).toBe("as it was");
  });

  test("goes on where it was interrupted, in both directions, and begins anew where that was of another file", async () => {
    const begun = 800_000;
    writeFileSync(there("up.aegis-part"), readFileSync(here("large")).subarray(0, begun));
    expect((await cp("large", on("up"))).stderr).toContain(`${begun} of them from before`);
    expect(sha256(there("up"))).toBe(sha256(here("large")));
    writeFileSync(here("down.aegis-part"), readFileSync(here("large")).subarray(0, begun));
    expect((await cp(on("large"), "down")).stderr).toContain(`${begun} of them from before`);
    writeFileSync(here("other.aegis-part"), randomBytes(begun));
    const anew = await cp(on("large"), "other");
    expect(anew.stderr).not.toContain("from before");
    for (const name of ["down", "other"]) expect(sha256(here(name))).toBe(sha256(here("large")));
  });

  test("is refused by the host's policy, and says what is missing", async () => {
    const denied = await cp("large", `web-1:${there("denied")}`);
    expect(denied).toMatchObject({ exit: 3, stderr: expect.stringContaining("policy_violation") });
    expect(existsSync(there("denied"))).toBe(false);
    expect(await cp(on("nothing"), "x")).toMatchObject({ exit: 1, stderr: expect.stringContaining("does not exist") });
    expect(await cp("a", "b")).toMatchObject({ exit: 2, stderr: expect.stringContaining("must be on a host") });
    expect((await cp("large", "web-1:relative")).stderr).toContain("must be absolute");
    expect((await cp("large", "nobody:/tmp/x")).stderr).toContain('no host "nobody"');
  });
});

describe("edge exec --job", () => {
  test("gives a handle at once, by which the job is asked for and ended", async () => {
    const exec = ["edge", "exec", "web-1", "--context", "operator", "--job", "--"];
    const started = await desk.run(...exec, "sh", "-c", "echo begun; sleep 600");
    expect(started.exit).toBe(0);
    const [, jobId = ""] = /^([0-9a-f-]{36})$/m.exec(started.stdout) ?? [];
    const ask = (tool: string) =>
      desk.run(
        ...["edge", "fleet", "run", "--yes", "--target", "@web-1", "--context", "operator"],
        ...["--tool", tool, "--arg", `job_id=${jobId}`, "-o", "json"],
      );
    await eventually("the job's output is there", async () => (await ask("job.output")).stdout.includes("begun"));
    expect((await ask("job.kill")).exit).toBe(0);
    expect((await ask("job.output")).stdout).toContain('"running":false');
  });
});

describe("controller audit", () => {
  test("is whole, also for somebody who has only the export, until one byte is another", async () => {
    expect((await desk.run("edge", "exec", "web-1", "--", "uname")).exit).toBe(0);
    const whole = await server.run("controller", "audit", "verify", "-o", "json");
    const { root_fingerprint: root, receipts } = json(whole);
    expect(whole.exit).toBe(0);
    expect(receipts.verified).toBeGreaterThan(0);
    expect(site.initialised.stdout).toContain(root);
    const exported = await server.run("controller", "audit", "export");
    expect(exported.exit).toBe(0);
    const auditor = site.place.machine("auditor");
    const file = join(auditor.home, "audit.jsonl");
    writeFileSync(file, exported.stdout);
    expect(json(await auditor.run("controller", "audit", "verify", file, "-o", "json"))).toMatchObject({
      ...{ whole: true, root_fingerprint: root, problems: [] },
      receipts: { invalid: 0, unknown_key: 0 },
    });
    expect((await auditor.feed(exported.stdout, "controller", "audit", "verify", "-")).exit).toBe(0);

    const bytes = Buffer.from(exported.stdout);
    const at = bytes.lastIndexOf('"principal":"tester"') + '"principal":"'.length;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    const flipped = await auditor.run("controller", "audit", "verify", file);
    expect(flipped.exit).toBe(1);
    expect(flipped.stdout).toMatch(/^record +[1-9]\d* problem/);
    expect(flipped.stderr).toMatch(/warning: row \d+: it was changed: its hash is another/);
    expect((await auditor.run("controller", "audit", "verify", "nowhere")).stderr).toContain("cannot read");
  });
});

describe("controller tenant", () => {
  test("lists who owns hosts; a removed one's tokens end at once", async () => {
    const token = ["controller", "token", "create", "--scope", "aegis.admin"];
    const { token: secret } = json(await server.run(...token, "--name", "eve", "--tenant", "acme", "-o", "json"));
    const eve = site.place.machine("eve", { ...desk.env, AEGIS_USER_TOKEN: secret });
    expect((await eve.run("whoami")).exit).toBe(0);
    const listed = json(await server.run("controller", "tenant", "ls", "-o", "json"));
    expect(listed).toEqual([
      expect.objectContaining({ tenant_id: "acme", hosts: 0, tokens: 1 }),
      expect.objectContaining({ tenant_id: "default", hosts: 1 }),
    ]);
    expect((await server.run("controller", "tenant", "rm", "acme")).stderr).toContain("acme is removed");
    expect((await eve.run("whoami")).exit).toBe(3);
    expect(await server.run("controller", "tenant", "rm", "acme")).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining('no tenant "acme"'),
    });
    expect((await server.run("controller", "tenant", "ls")).stdout).toMatch(/^TENANT .*\ndefault +1 +2 +20\S+\n$/);
  });
});

describe("controller backup", () => {
  test("is private, replaces nothing, and is refused when it is damaged or when its place is taken", async () => {
    const file = join(server.home, "aegis.backup");
    const made = await server.run("controller", "backup", "aegis.backup", "-o", "json");
    expect(json(made)).toMatchObject({ file, files: expect.arrayContaining(["controller.db", "keys/command.key"]) });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect((await server.run("controller", "backup", "aegis.backup")).stderr).toContain("exists");
    expect((await server.run("controller", "restore", "aegis.backup")).stderr).toContain("is not empty");
    const copy = join(server.home, "copy");
    writeFileSync(copy, readFileSync(file));
    truncateSync(copy, statSync(file).size - 5_000);
    expect(await server.run("controller", "restore", copy, "--data-dir", "elsewhere")).toMatchObject({
      exit: 78,
      stderr: expect.stringContaining("damaged"),
    });
  });

  test("makes the same controller again: hosts come back by themselves, operators stay signed in", async () => {
    await server.run("controller", "backup", "whole.backup");
    expect(await site.controller.stop()).toBe(0);
    const restored = await server.run("controller", "restore", "whole.backup", "--data-dir", "restored");
    expect(restored).toMatchObject({
      exit: 0,
      stderr: `next: aegis controller start --data-dir ${join(server.home, "restored")}\n`,
    });
    const again = server.start(
      ...["controller", "start", "--data-dir", "restored", "--grpc-port", `${site.grpcPort}`],
      ...["--port", new URL(site.httpUrl).port],
    );
    await again.until(/"event":"controller_started"/);
    await eventually(
      "the host is back",
      async () => (await desk.run("edge", "exec", "web-1", "--", "uname")).exit === 0,
      30_000,
    );
    expect((await server.run("controller", "audit", "verify", "--data-dir", "restored")).exit).toBe(0);
    expect(await again.stop()).toBe(0);
  });
});
