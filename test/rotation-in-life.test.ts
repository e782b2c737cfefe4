/** Keys and tokens change on real machines: under a call that streams, beside a daemon or without one, and through kills. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { loadControllerConfig } from "../src/config/controller.ts";
import { verifyDataDir } from "../src/controller/audit-verify.ts";
import { importSigningKey } from "../src/envelope/public-key.ts";
import { tokenFacts } from "../src/identity/keyring.ts";
import { eventually, executable, type Outcome, socketsOf } from "./support/aegis.ts";
import { type Host, type Installation, installation, jsonOf } from "./support/installation.ts";
import { needs } from "./support/needs.ts";

setDefaultTimeout(60_000);

let site: Installation;
beforeAll(async () => {
  site = await installation();
});
afterAll(() => site.close());

const file = (host: Host, name: string) => join(host.stateDir, name);
const publicKey = (host: Host) =>
  Buffer.from(importSigningKey(readFileSync(file(host, "node.key"))).raw).toString("base64url");
const token = (host: Host) => tokenFacts(readFileSync(file(host, "node.token"), "utf8").trim());
const sessions = (host: Host) => host.daemon?.stderr().match(/"event":"connected"/g)?.length ?? 0;
const works = async (host: Host) => {
  const ran = await site.desk.run("edge", "exec", host.name, "--", "uname");
  expect(ran).toMatchObject({ exit: 0, stdout: "Linux\n" });
};
const ended = async (host: Host) => {
  host.daemon?.signal("SIGTERM");
  await host.daemon?.ended;
};
const well = (outcome: Outcome) => {
  if (outcome.exit !== 0) throw new Error(`exit ${outcome.exit}: ${outcome.stderr}`);
  return jsonOf(outcome);
};

describe("while a call streams", () => {
  test("the host's key and token and all of the controller's keys change, over one stream and one connection", async () => {
    const host = await site.addHost("busy", { enroll: ["--full-access"] });
    const pid = host.daemon?.pid ?? 0;
    const before = { key: publicKey(host), connection: socketsOf(pid).connected };
    const marker = join(host.home, "stop");
    const script = `i=0; until [ -e ${marker} ]; do i=$((i+1)); echo $i; sleep 0.05; done`;
    const call = site.desk.start("edge", "exec", "busy", "--context", "operator", "--", "sh", "-c", script);
    await call.until(/^5$/m);

    const rotated = well(await host.run("edge", "keys", "rotate", "-o", "json"));
    const again = well(await host.run("edge", "keys", "rotate", "-o", "json"));
    expect(again).toMatchObject({ former_key_fingerprint: rotated.key_fingerprint, resumed: false });
    const renewed = well(await host.run("edge", "token", "refresh", "--force", "-o", "json"));
    expect(renewed).toEqual({ renewed: true, token_expires_at: expect.any(String) });
    for (const change of [["rotate"], ["rotate", "token"], ["rotate", "root"], ["revoke", "command"]])
      expect(well(await site.server.run("controller", "keys", ...change, "-o", "json"))).toMatchObject({
        in_use: true,
      });
    await works(host);

    const [, at = ""] = /(\d+)\n$/.exec(call.stdout()) ?? [];
    await call.until(new RegExp(`^${Number(at) + 5}$`, "m"));
    await site.desk.startProgram(["touch", marker]).ended;
    const { exit, stdout } = await call.ended;
    expect(exit).toBe(0);
    const lines = stdout.trim().split("\n");
    expect(lines).toEqual(lines.map((_, index) => String(index + 1)));
    expect(sessions(host)).toBe(1);
    expect(socketsOf(pid).connected).toEqual(before.connection);
    expect(publicKey(host)).not.toBe(before.key);
    expect(token(host)?.publicKey).toBe(publicKey(host));
    const shown = well(await host.run("edge", "status", "-o", "json"));
    expect(shown.key_fingerprint).toBe(again.key_fingerprint);
    const dataDir = join(site.server.home, ".aegis/controller");
    const { controllerId } = await loadControllerConfig(dataDir);
    const audit = await verifyDataDir({ dataDir, controllerId });
    expect(audit).toMatchObject({ problems: [], receipts: { invalid: 0, unknown_key: 0 } });

    // And after a restart of either end.
    await ended(host);
    site.controller.signal("SIGTERM");
    await site.controller.ended;
    await site.restartController();
    await host.connect();
    await works(host);
  });

  test("two commands at once are done one after the other", async () => {
    const host = await site.addHost("twice");
    const both = await Promise.all([1, 2].map(() => host.run("edge", "keys", "rotate", "-o", "json")));
    const [one, two] = both.map(well);
    expect(new Set([one.key_fingerprint, two.key_fingerprint]).size).toBe(2);
    expect([one.former_key_fingerprint, two.former_key_fingerprint]).toContain(
      one.former_key_fingerprint === two.key_fingerprint ? two.key_fingerprint : one.key_fingerprint,
    );
    await works(host);
    expect(readdirSync(file(host, "archive")).filter((name) => name.endsWith(".key"))).toHaveLength(2);
  });
});

test("an operator rotates the keys of a fleet, where each host's policy allows it", async () => {
  const [able, unable] = [
    await site.addHost("fleet-1", { enroll: ["--full-access", "--label", "rotates=yes"] }),
    await site.addHost("fleet-2", { enroll: ["--label", "rotates=yes"] }),
  ];
  const before = [publicKey(able), publicKey(unable)];
  const ran = await site.desk.run(
    ...["edge", "fleet", "keys", "rotate", "--target", "labels=rotates=yes", "--yes", "-o", "json"],
  );
  expect(ran.exit).toBe(6);
  expect(publicKey(able)).not.toBe(before[0] as string);
  expect(publicKey(unable)).toBe(before[1] as string);
  expect(ran.stdout).toContain("security_context_not_found");
  for (const host of [able, unable]) {
    await works(host);
    expect(sessions(host)).toBe(1);
  }
});

describe("where no daemon runs", () => {
  test("the command does it itself, and files are as private as ever", async () => {
    const host = await site.addHost("idle", { start: false });
    const before = publicKey(host);
    well(await host.run("edge", "keys", "rotate", "--keep-old", "1h", "-o", "json"));
    expect(publicKey(host)).not.toBe(before);
    expect(readFileSync(file(host, "node.key.pub")).toString("base64url")).toBe(publicKey(host));
    const [archived = ""] = readdirSync(file(host, "archive")).toSorted();
    const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);
    expect([
      mode(file(host, "node.key")),
      mode(file(host, "node.token")),
      mode(file(host, `archive/${archived}`)),
    ]).toEqual(["600", "600", "600"]);
    const kept = readFileSync(file(host, `archive/${archived}`));
    expect(Buffer.from(importSigningKey(kept).raw).toString("base64url")).toBe(before);
    expect(existsSync(file(host, "run/lock"))).toBe(false);
    await host.connect();
    await works(host);
  });

  test("a controller that cannot be reached changes nothing, and the rotation is finished later", async () => {
    const host = await site.addHost("cut-off", { start: false });
    const before = publicKey(host);
    host.edit(`localhost:${site.grpcPort}`, "localhost:1");
    const failed = await host.run("edge", "keys", "rotate");
    expect(failed.exit).toBe(5);
    expect(failed.stderr).toMatch(/cannot reach the controller at https:\/\/localhost:1/);
    expect(publicKey(host)).toBe(before);
    host.edit("localhost:1", `localhost:${site.grpcPort}`);
    // The daemon finishes it by itself, as soon as it is connected.
    await host.connect();
    await host.daemon?.until(/"event":"node_key_rotated"/);
    expect(publicKey(host)).not.toBe(before);
    await works(host);
  });

  test("of a host that is not enrolled the commands say so", async () => {
    const machine = site.place.machine("nobody");
    for (const words of [
      ["edge", "keys", "rotate"],
      ["edge", "token", "refresh"],
    ]) {
      const ran = await machine.run(...words);
      expect([ran.exit, ran.stderr]).toEqual([78, expect.stringContaining("is not enrolled")]);
    }
  });
});

/** Where a rotation touches the disk or the network, and how often. */
const points = [
  ["openat", "node.key.next", [1]],
  ["/^fsync", null, [1, 2, 4, 7, 12]],
  ["/^rename", null, [1, 2, 3, 5, 6, 7]],
  ["/^unlink", null, [1, 2, 3]],
] as const;

describe("55 killed at any moment", () => {
  needs("command:strace")(
    "55 at each point where a rotation writes, moves or removes: the next daemon connects by itself",
    async () => {
      const seen = { before: 0, between: 0, after: 0 };
      let at = 0;
      for (const [call, path, times] of points)
        for (const when of times) {
          // A host may rotate ten times an hour, and each point takes two or three.
          const host = await site.addHost(`killed-${at++}`, { start: false });
          const before = publicKey(host);
          const inject = [
            ...(path === null ? [] : ["-P", file(host, path)]),
            ...["-e", `trace=${call}`, "-e", `inject=${call}:signal=SIGKILL:when=${when}`],
          ];
          const killed = await host.startProgram([
            ...["strace", "-f", "-qq", "-o", "/dev/null", ...inject],
            ...[executable, "edge", "keys", "rotate"],
          ]).ended;
          const unfinished = existsSync(file(host, "node.key.next"));
          if (killed.exit === 0) seen.after++;
          else if (publicKey(host) === before && !unfinished) seen.before++;
          else seen.between++;
          await host.connect();
          await works(host);
          await eventually(`${call} ${when}: no rotation is left open`, () => !existsSync(file(host, "node.key.next")));
          expect(token(host)?.publicKey).toBe(publicKey(host));
          await ended(host);
        }
      expect(seen.before + seen.between).toBeGreaterThan(8);
      expect(seen.between).toBeGreaterThan(4);
    },
    120_000,
  );
});
