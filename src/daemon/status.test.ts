import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { systemClock } from "../platform/clock.ts";
import { processStart, readStatus, type StatusReport, writeStatus } from "./status.ts";
import { statusWriter } from "./status-writer.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "aegis-status-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

const report = async (change: Partial<StatusReport> = {}): Promise<StatusReport> => ({
  ...{ state: "connected", pid: process.pid, started: (await processStart(process.pid)) ?? "", seal: "strict" },
  ...{ nodeId: "n", tenantId: "acme", controller: "https://c.example:50056", otlp: null, version: "1", at: "then" },
  ...{ connectedSince: "then", lastError: null, retryAt: null, identity: { protected: true, detail: [] } },
  ...{ paused: false, draining: false, activeCalls: 0, queuedCalls: 0, undeliveredResults: 0 },
  ...{ operatorOnly: { holds: true }, knownNode: "n ed25519:k acme web-1", keyFingerprint: "SHA256:k" },
  ...change,
});
const file = () => join(dir, "run", "status.json");

test("what the daemon wrote is read back, and the daemon is alive while its process is", async () => {
  await writeStatus(dir, await report({ activeCalls: 3 }));
  expect(await readStatus(dir)).toMatchObject({ state: "connected", activeCalls: 3, alive: true });
  expect(statSync(file()).mode & 0o777).toBe(0o600);
});

test("a process that ended is not alive, and neither is another one with the same pid", async () => {
  const child = Bun.spawn(["sleep", "60"]);
  const started = await processStart(child.pid);
  expect(started).not.toBeNull();
  await writeStatus(dir, await report({ pid: child.pid, started: started ?? "" }));
  expect((await readStatus(dir))?.alive).toBe(true);
  child.kill("SIGKILL");
  await child.exited;
  expect(await processStart(child.pid)).toBeNull();
  expect((await readStatus(dir))?.alive).toBe(false);
  await writeStatus(dir, await report({ started: "at another time" }));
  expect((await readStatus(dir))?.alive).toBe(false);
});

needs("linux")("a process that ended and that nobody has asked about yet is not alive", async () => {
  // What `sh` started belongs to `sleep` once that has taken the place of `sh`, and `sleep` never asks.
  const script = "exec 3<&0; { read _ <&3; } & echo $!; exec sleep 60 </dev/null 3<&-";
  const parent = Bun.spawn(["sh", "-c", script], { stdin: "pipe", stdout: "pipe" });
  const { value } = await parent.stdout.getReader().read();
  const pid = Number(Buffer.from(value ?? []).toString());
  const until = async (path: string, text: string) => {
    while (!readFileSync(path, "utf8").includes(text)) await systemClock.sleep(5, new AbortController().signal);
  };
  await until(`/proc/${parent.pid}/comm`, "sleep");
  expect(await processStart(pid)).not.toBeNull();
  parent.stdin.write("\n");
  await parent.stdin.end();
  await until(`/proc/${pid}/stat`, ") Z ");
  expect(await processStart(pid)).toBeNull();
  parent.kill("SIGKILL");
  await parent.exited;
});

test("a daemon that said goodbye is not alive, whatever runs", async () => {
  await writeStatus(dir, await report({ state: "stopped" }));
  expect((await readStatus(dir))?.alive).toBe(false);
});

test("no file and a damaged one mean that nothing is known", async () => {
  expect(await readStatus(dir)).toBeNull();
  mkdirSync(join(dir, "run"));
  for (const text of ["", "{", '{"state":"connected"}']) {
    writeFileSync(file(), text);
    expect(await readStatus(dir)).toBeNull();
  }
});

test("only a change is written, the last one wins, and flush waits for it", async () => {
  let times = 0;
  const writer = statusWriter(dir, await report(), () => `${++times}`, recordedLog());
  await writer.flush();
  writer.update({ activeCalls: 0 });
  await writer.flush();
  expect(times).toBe(1);
  for (let calls = 1; calls <= 50; calls++) writer.update({ activeCalls: calls });
  await writer.flush();
  expect(JSON.parse(readFileSync(file(), "utf8"))).toMatchObject({ activeCalls: 50 });
  expect(times).toBeLessThan(5);
});

test("a disk that takes nothing does not stop the daemon, and is complained about once", async () => {
  writeFileSync(join(dir, "run"), "in the way");
  const log = recordedLog();
  const writer = statusWriter(dir, await report(), () => "now", log);
  for (let calls = 1; calls <= 3; calls++) {
    writer.update({ activeCalls: calls });
    await writer.flush();
  }
  expect(log.events()).toEqual(["status_not_written"]);
});
