/** What a host's owner reads of each call, and that neither a crash nor a caller nor a full disk takes it away. */
import { afterAll, describe, expect, test } from "bun:test";
import { createHash, randomUUID } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { receivedCall, scriptedHost, scriptedTool, settled } from "../../test/support/scripted-host.ts";
import { newKey } from "../../test/support/strict-keys.ts";
import { createInvocations } from "./invocations.ts";
import type { Host } from "./invoke.ts";
import { createOutbox } from "./outbox.ts";
import { ownerCalls } from "./owner-calls.ts";
import { openOwnerLog, ownerLogLimits, readOwnerLog } from "./owner-log.ts";
import type { ReceivedCall } from "./received.ts";

const scratch = mkdtempSync(join(tmpdir(), "aegis-owner-log-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A daemon's calls with a real record of them. `again` is the next daemon on the same host. */
function stage(stateDir = join(scratch, randomUUID()), changes: Partial<Host> = {}) {
  const clock = fakeClock();
  const log = recordedLog();
  const nodeId = randomUUID();
  const { tool, runs } = scriptedTool();
  const host = { ...scriptedHost({ clock, tools: [tool], nodeId }), ...changes };
  const outbox = createOutbox({ nodeId, nodeKey: newKey, clock, log });
  const ownerLog = openOwnerLog(stateDir, { clock, log, version: "1.2.3" });
  const invocations = createInvocations({ host: () => host, outbox, clock, log, ownerLog, maxConcurrent: 2 });
  const submit = async (change: Partial<ReceivedCall> = {}) => {
    const call = receivedCall(clock, { argsJson: Buffer.from('{"what":"this"}'), ...change });
    invocations.submit(call);
    await settled();
    return call.commandId;
  };
  const calls = async (alive = true) => ownerCalls((await readOwnerLog(stateDir)).lines, alive);
  return { stateDir, clock, log, runs, invocations, submit, calls, ownerLog };
}

const folder = (stateDir: string) => join(stateDir, "run/log");
const newest = (stateDir: string) => join(folder(stateDir), "calls.jsonl");

describe("a call", () => {
  test("is recorded before its tool runs, and again with its end", async () => {
    const { submit, runs, calls, clock } = stage();
    const commandId = await submit();
    expect(runs).toHaveLength(1);
    const args = '{"what":"this"}';
    const begun = {
      ...{ command_id: commandId, caller: "tester", operator: null, tool: "test.work", context: "default", args },
      ...{ args_sha256: createHash("sha256").update(args).digest("hex"), rule: "default.capabilities[0]" },
      verdict: "allowed" as const,
    };
    expect(await calls()).toEqual([expect.objectContaining({ ...begun, outcome: "running", exit_code: null })]);
    await clock.advance(1500);
    const head = Buffer.from("four");
    runs[0]?.end({
      ...{ ok: false, exitCode: 3, errorKind: "nonzero_exit", errorMessage: "exit code 3" },
      stdout: { head, tail: new Uint8Array(), bytes: 4 },
    });
    await settled();
    expect(await calls()).toEqual([
      expect.objectContaining({
        ...{ ...begun, outcome: "nonzero_exit", error: "exit code 3", exit_code: 3, duration_ms: 1500 },
        ...{ stdout_bytes: 4, stderr_bytes: 0 },
      }),
    ]);
  });

  test("that is refused is there too, wherever that was: by policy, by its form, in the queue, for want of a place", async () => {
    const { submit, calls, invocations, runs } = stage();
    await submit({ tool: "no.such" });
    await submit({ context: "no\u202esuch" });
    await submit({ tenant: "other" });
    invocations.reject(randomUUID(), new Uint8Array(), "seal_envelope is missing");
    await submit();
    await submit();
    const waiting = await submit();
    invocations.cancel(waiting, "the caller left");
    void invocations.stop(0);
    await submit();
    expect(runs).toHaveLength(2);
    const refused = (await calls()).filter(({ verdict }) => verdict === "refused");
    expect(refused.map(({ outcome, caller, exit_code }) => [outcome, caller, exit_code])).toEqual([
      ["tool_not_found", "tester", null],
      ["security_context_not_found", "tester", null],
      ["envelope_invalid", null, null],
      ["envelope_invalid", null, null],
      ["cancelled", null, null],
      ["draining", null, null],
    ]);
    expect(refused[3]).toMatchObject({ tool: null, error: "seal_envelope is missing" });
  });

  test("with the id of an earlier one is another entry and hides nothing", async () => {
    const { submit, calls, runs } = stage();
    const commandId = await submit();
    runs[0]?.end();
    await settled();
    await submit({ commandId, argsJson: Buffer.from("{}") });
    expect((await calls()).map(({ outcome, args }) => [outcome, args])).toEqual([
      ["ok", '{"what":"this"}'],
      ["replayed", "{}"],
    ]);
  });

  test("with huge arguments and names keeps its line short", async () => {
    const { submit, stateDir, calls } = stage();
    await submit({ tool: "t".repeat(5000), argsJson: Buffer.from(`"${"€".repeat(100_000)}"`) });
    expect(readFileSync(newest(stateDir)).length).toBeLessThan(4096);
    expect((await calls())[0]?.args).toMatch(/^"€{399}\.\.\.$/);
  });
});

describe("the record", () => {
  test("is its owner's alone, under every umask", () => {
    const before = process.umask(0);
    try {
      const { stateDir } = stage();
      expect(statSync(folder(stateDir)).mode & 0o777).toBe(0o700);
      expect(statSync(newest(stateDir)).mode & 0o777).toBe(0o600);
    } finally {
      process.umask(before);
    }
  });

  test("shows a call that a crash cut off, and a line torn by it costs that line alone", async () => {
    const first = stage();
    await first.submit();
    first.runs[0]?.end();
    await settled();
    await first.submit();
    appendFileSync(newest(first.stateDir), '{"event":"ended","at":"2026');
    expect((await first.calls(false)).map(({ outcome }) => outcome)).toEqual(["ok", "cut off"]);
    const next = stage(first.stateDir);
    await next.submit();
    expect((await next.calls()).map(({ outcome }) => outcome)).toEqual(["ok", "cut off", "running"]);
    expect((await readOwnerLog(first.stateDir)).damaged).toBe(1);
  });

  test("stays within its bound, and what goes is the oldest", async () => {
    const { stateDir, submit, calls } = stage();
    mkdirSync(folder(stateDir), { recursive: true });
    const filler = `${"x".repeat(1023)}\n`.repeat(ownerLogLimits.fileBytes / 1024 - 8);
    for (let n = 0; n < ownerLogLimits.files + 2; n++) {
      appendFileSync(newest(stateDir), filler);
      for (let m = 0; m < 20; m++) await submit({ tool: `round.${n}` });
    }
    const kept = readdirSync(folder(stateDir));
    expect(kept.sort()).toEqual(["calls.1.jsonl", "calls.2.jsonl", "calls.3.jsonl", "calls.jsonl"]);
    for (const name of kept)
      expect(statSync(join(folder(stateDir), name)).size).toBeLessThanOrEqual(ownerLogLimits.fileBytes);
    const tools = new Set((await calls()).map(({ tool }) => tool));
    expect(tools).not.toContain("round.0");
    expect(tools).toContain(`round.${ownerLogLimits.files + 1}`);
  });

  test("that a disk does not take stops no call, is told once, and says later what it lost", async () => {
    const { stateDir, submit, runs, log, calls } = stage();
    rmSync(folder(stateDir), { recursive: true });
    writeFileSync(folder(stateDir), "in the way");
    await submit();
    runs[0]?.end();
    await settled();
    expect(log.events().filter((event) => event === "owner_log_not_written")).toHaveLength(1);
    rmSync(folder(stateDir));
    await submit({ tool: "no.such" });
    expect((await readOwnerLog(stateDir)).lines[0]).toMatchObject({ event: "lost", lines: 2 });
    expect((await calls()).map(({ outcome }) => outcome)).toEqual(["tool_not_found"]);
  });

  test("may be taken away by its owner while the daemon runs", async () => {
    const { stateDir, submit, calls } = stage();
    rmSync(newest(stateDir));
    await submit({ tool: "no.such" });
    expect(existsSync(newest(stateDir))).toBe(true);
    expect(await calls()).toHaveLength(1);
  });
});
