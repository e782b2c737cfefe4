/** cmd.run with wait_secs, job.wait, job.output, job.kill, job.list. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { callTool, refusalOf } from "../../test/support/call-tool.ts";
import { type FakeClock, fakeClock } from "../../test/support/fake-clock.ts";
import { type FakeProcess, type FakeProcesses, fakeProcesses } from "../../test/support/fake-process.ts";
import { systemClock } from "../platform/clock.ts";
import { Secret } from "../platform/log.ts";
import { systemProcesses } from "../platform/process.ts";
import { cmdRun, commandHost, systemPath } from "./cmd-run.ts";
import { jobTools } from "./job-tools.ts";
import { createJobs, type Jobs, jobLimits } from "./jobs.ts";
import { createRegistry, type Registry } from "./registry.ts";
import type { StopReason, ToolContext, ToolResult } from "./tool.ts";

let home: string;
let clock: FakeClock;
let processes: FakeProcesses;
let jobs: Jobs;
let tools: Registry;
const directory = () => join(home, "run/jobs");

beforeEach(() => {
  home = realpathSync(mkdtempSync(join(tmpdir(), "aegis-jobs-")));
  clock = fakeClock();
  processes = fakeProcesses();
  const host = { runner: processes, clock, path: systemPath, home };
  jobs = createJobs(commandHost(host), directory());
  tools = createRegistry([cmdRun({ ...host, jobs }), ...jobTools({ jobs, clock })]);
});
afterEach(async () => {
  await jobs.close();
  expect(clock.sleeping).toBe(0);
  rmSync(home, { recursive: true });
});

const tool = (name: string) => {
  const found = tools.get(name);
  if (!found) throw new Error(`no ${name}`);
  return found;
};

async function call(name: string, args: object, more: Partial<ToolContext> = {}): Promise<ToolResult> {
  const called = await callTool(tool(name), args, more);
  if (called.kind !== "ran") throw new Error(JSON.stringify(called));
  return called.result;
}

const text = ({ head, tail }: ToolResult["stdout"]) => Buffer.concat([head, tail]).toString();
const real = (ms: number) => systemClock.sleep(ms, new AbortController().signal);

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition(); turn++) {
    if (turn > 500) throw new Error("it never came");
    await real(2);
  }
}

/** Starts `ls`, which is played here, and waits with it for `wait_secs` that pass at once. */
async function startJob(
  args: object = {},
  more: Partial<ToolContext> = {},
): Promise<{ id: string; process: FakeProcess; result: ToolResult }> {
  const before = processes.all.length;
  const running = call("cmd.run", { command: "ls", wait_secs: 5, ...args }, more);
  await until(() => processes.all.length > before && clock.sleeping >= 2);
  await clock.advance(5_000);
  const result = await running;
  const process = processes.all.at(-1);
  if (!process || !result.jobId) throw new Error(`no job: ${JSON.stringify(result)}`);
  return { id: result.jobId, process, result };
}

test("what ends within the wait is answered like any command, and no job stays", async () => {
  const live: string[] = [];
  const running = call(
    "cmd.run",
    { command: "ls", wait_secs: 5 },
    { output: async (_, bytes) => void live.push(Buffer.from(bytes).toString()) },
  );
  await until(() => processes.all.length > 0);
  await processes.all[0]?.print("some");
  await processes.all[0]?.print("thing", "stderr");
  processes.all[0]?.exit(3);
  const result = await running;
  expect(result).toMatchObject({ ok: false, exitCode: 3, errorKind: "nonzero_exit" });
  expect(result.jobId).toBeUndefined();
  expect(result.structured).toBeUndefined();
  expect([text(result.stdout), text(result.stderr), live.join("")]).toEqual(["some", "thing", "something"]);
  expect((await call("job.list", {})).structured).toMatchObject({ jobs: [] });
});

test("what still runs then is handed back as a job with its output so far, and goes on", async () => {
  const before = processes.all.length;
  const running = call("cmd.run", { command: "ls", args: ["-l"], wait_secs: 5, timeout_secs: 100 });
  await until(() => processes.all.length > before && clock.sleeping >= 2);
  await processes.all[0]?.print("so far");
  await clock.advance(5_000);
  const result = await running;
  expect(result).toMatchObject({ ok: true, structured: { running: true, command: "ls -l", stdout_bytes: 6 } });
  expect(result.structured?.job_id).toBe(result.jobId as string);
  expect(text(result.stdout)).toBe("so far");
  expect(processes.all[0]?.stopped.aborted).toBe(false);
  await processes.all[0]?.print(", and more");
  processes.all[0]?.exit();
  const waited = await call("job.wait", { job_id: result.jobId });
  expect(waited).toMatchObject({ ok: true, exitCode: 0, structured: { running: false, stdout_bytes: 16 } });
  expect(text(waited.stdout)).toBe("so far, and more");
  // Asking twice is the same as once.
  expect(await call("job.wait", { job_id: result.jobId })).toEqual(waited);
});

test("a call that is cancelled, or out of time, before its command is a job ends it", async () => {
  const stop = new AbortController();
  const running = call("cmd.run", { command: "ls", wait_secs: 5 }, { signal: stop.signal });
  await until(() => processes.all.length > 0);
  stop.abort({ kind: "cancelled", detail: "by ann" } satisfies StopReason);
  expect(await running).toMatchObject({ ok: false, errorKind: "cancelled", signal: "SIGTERM" });
  expect((await call("job.list", {})).structured).toMatchObject({ jobs: [] });
});

test("job.wait shows what is printed meanwhile, and returns at its time or at the end", async () => {
  const { id, process } = await startJob();
  await process.print("before");
  const live: string[] = [];
  const output = async (_: string, bytes: Uint8Array) => void live.push(Buffer.from(bytes).toString());
  const waiting = call("job.wait", { job_id: id, wait_secs: 10 }, { output });
  await until(() => clock.sleeping >= 2);
  await process.print("during");
  await until(() => live.length > 0);
  await clock.advance(10_000);
  expect((await waiting).structured).toMatchObject({ running: true });
  expect(live).toEqual(["during"]);
  const again = call("job.wait", { job_id: id, wait_secs: 10 });
  process.exit(1);
  expect(await again).toMatchObject({ ok: false, exitCode: 1, structured: { job_id: id, running: false } });
});

test("a wait that is cancelled does not end the job", async () => {
  const { id, process } = await startJob();
  const stop = new AbortController();
  const waiting = call("job.wait", { job_id: id }, { signal: stop.signal });
  stop.abort({ kind: "timeout", afterMs: 60_000 } satisfies StopReason);
  expect(await waiting).toMatchObject({
    ok: false,
    errorKind: "timeout",
    jobId: id,
    errorMessage: `the call's 60 s are over; job ${id} is not ended by that`,
  });
  expect(process.stopped.aborted).toBe(false);
});

test("a reader that does not read holds up neither the job nor the end of its wait", async () => {
  const { id, process } = await startJob();
  const waiting = call("job.wait", { job_id: id, wait_secs: 10 }, { output: () => new Promise(() => {}) });
  await until(() => clock.sleeping >= 2);
  for (let i = 0; i < 100; i++) await process.print("x".repeat(32 * 1024));
  await clock.advance(10_000);
  expect((await waiting).structured).toMatchObject({ running: true, stdout_bytes: 100 * 32 * 1024 });
});

test("job.output reads from any byte on, says what is gone and where to go on", async () => {
  const { id, process } = await startJob();
  await process.print("hé");
  const read = async (args: object = {}) => (await call("job.output", { job_id: id, ...args })).structured;
  expect(await read()).toMatchObject({
    content: "hé",
    offset: 0,
    bytes: 3,
    next_offset: 3,
    skipped_bytes: 0,
    eof: false,
    running: true,
  });
  expect(await read({ max_bytes: 2 })).toMatchObject({ content: "h", bytes: 1, next_offset: 1 });
  expect(await read({ offset: 1, encoding: "base64" })).toMatchObject({ content: "w6k=" });
  expect(await read({ offset: 3 })).toMatchObject({ content: "", eof: false });
  expect(await read({ stream: "stderr" })).toMatchObject({ total_bytes: 0 });
  for (let i = 0; i < 64; i++) await process.print("y".repeat(32 * 1024));
  const total = 3 + 64 * 32 * 1024;
  expect(await read({ offset: 600 * 1024, max_bytes: 10 })).toMatchObject({
    offset: total - 512 * 1024,
    skipped_bytes: total - 512 * 1024 - 600 * 1024,
    content: "yyyyyyyyyy",
  });
  process.exit();
  await until(() => jobs.list({ tenant: "acme", context: "default" })[0]?.end !== null);
  expect(await read({ offset: total })).toMatchObject({ content: "", eof: true, running: false });
});

test("job.kill ends it with all it started, and tells how it ended", async () => {
  const { id, process } = await startJob();
  await process.print("output");
  const killed = await call("job.kill", { job_id: id });
  expect(process.stopped.aborted).toBe(true);
  expect(killed).toMatchObject({ ok: true, signal: "SIGTERM", structured: { running: false } });
  expect(killed.structured?.how).toStartWith('"ls" was cancelled (job.kill)');
  expect(await call("job.wait", { job_id: id })).toMatchObject({ ok: false, errorKind: "cancelled" });
});

test("a job ends at its time limit and by silence, told by whoever asks later", async () => {
  const { id } = await startJob({ timeout_secs: 60 });
  const silent = await startJob({ idle_timeout_secs: 20, timeout_secs: 3600 });
  await clock.advance(55_000);
  expect(await call("job.wait", { job_id: id })).toMatchObject({ errorKind: "timeout" });
  expect((await call("job.wait", { job_id: silent.id })).errorMessage).toStartWith(
    '"ls" was stopped because it printed nothing for 20 s',
  );
  const unlimited = await startJob();
  expect(unlimited.result.structured?.deadline_at).toBe(
    new Date(clock.now() - 5_000 + jobLimits.defaultTimeoutMs).toISOString(),
  );
});

test("a job belongs to its tenant and context, and is not there for others", async () => {
  const { id, process } = await startJob();
  for (const owner of [
    { tenant: "acme", context: "other" },
    { tenant: "evil", context: "default" },
  ]) {
    for (const name of ["job.wait", "job.output", "job.kill"])
      expect(await refusalOf(tool(name), { job_id: id }, { owner })).toStartWith(
        `there is no job ${id} of context ${owner.context}`,
      );
    expect((await call("job.list", {}, { owner })).structured).toMatchObject({ jobs: [] });
  }
  expect(process.stopped.aborted).toBe(false);
  expect((await call("job.list", {})).structured).toMatchObject({ jobs: [{ job_id: id, running: true }] });
});

test("secrets are masked before anything is written down", async () => {
  const { id, process } = await startJob({}, { secretEnv: { TOKEN: new Secret("s3cr3t-value") } });
  expect(process.spec.env.TOKEN).toBe("s3cr3t-value");
  await process.print("it is s3cr3t-");
  await process.print("value!");
  expect((await call("job.output", { job_id: id })).structured).toMatchObject({ content: "it is [secret]!" });
});

test("places are bounded: ended jobs make room for new ones, running ones do not", async () => {
  const first = await startJob();
  const running = [first];
  for (let i = 1; i < jobLimits.jobsOfOneOwner; i++) running.push(await startJob());
  const refused = await call("cmd.run", { command: "ls", wait_secs: 5 });
  expect(refused).toMatchObject({ ok: false, errorKind: "overloaded" });
  first.process.exit();
  await until(() => jobs.list({ tenant: "acme", context: "default" })[0]?.end !== null);
  const next = await startJob();
  expect(await refusalOf(tool("job.wait"), { job_id: first.id })).toContain("there is no job");
  expect(next.id).not.toBe(first.id);
  const owner = { tenant: "acme", context: "other" };
  for (let i = 0; i < jobLimits.jobs - jobLimits.jobsOfOneOwner; i++) await startJob({}, { owner });
  const third = { tenant: "acme", context: "third" };
  expect(await call("cmd.run", { command: "ls", wait_secs: 5 }, { owner: third })).toMatchObject({
    errorKind: "overloaded",
  });
  running.at(-1)?.process.exit();
  await real(5);
  await startJob({}, { owner: third });
});

test("calls that come together do not take the same last place", async () => {
  const all = Array.from({ length: jobLimits.jobsOfOneOwner + 4 }, () =>
    call("cmd.run", { command: "ls", wait_secs: 5 }),
  );
  await until(() => processes.all.length === jobLimits.jobsOfOneOwner);
  await real(20);
  await clock.advance(5_000);
  const results = await Promise.all(all);
  expect(results.filter(({ errorKind }) => errorKind === "overloaded")).toHaveLength(4);
});

test("an ended job is forgotten after an hour", async () => {
  const { id, process } = await startJob();
  process.exit();
  expect(await call("job.wait", { job_id: id })).toMatchObject({ ok: true });
  await clock.advance(jobLimits.keptMs);
  await startJob();
  expect(await refusalOf(tool("job.wait"), { job_id: id })).toContain("it ended over an hour ago");
});

test("the end of the daemon ends its jobs, and leaves nothing on disk", async () => {
  const { process } = await startJob();
  expect(existsSync(directory())).toBe(true);
  await jobs.close();
  expect(process.stopped.aborted).toBe(true);
  expect(existsSync(directory())).toBe(false);
  expect(await call("cmd.run", { command: "ls", wait_secs: 5 })).toMatchObject({ errorKind: "overloaded" });
});

test("real processes: a job that prints megabytes goes on without a reader, and no process is left by job.kill", async () => {
  const host = {
    runner: systemProcesses({ clock: systemClock, launcher: null }),
    clock: systemClock,
    path: systemPath,
    home,
  };
  const own = createJobs(commandHost(host), join(home, "real"));
  tools = createRegistry([cmdRun({ ...host, jobs: own }), ...jobTools({ jobs: own, clock: systemClock })]);
  const script = "echo begin; head -c 5000000 /dev/zero | tr '\\0' x; echo; echo end; sleep 600";
  const { jobId } = await call("cmd.run", { command: "sh", args: ["-c", script], wait_secs: 0.3 });
  await until(() => own.list({ tenant: "acme", context: "default" })[0]?.output.stdout.bytes === 5_000_011);
  const end = await call("job.output", { job_id: jobId, offset: 5_000_000 });
  expect(end.structured?.content).toBe("xxxxxx\nend\n");
  const killed = await call("job.kill", { job_id: jobId });
  expect(killed).toMatchObject({ ok: true, signal: "SIGTERM" });
  expect(text(killed.stdout).slice(0, 10)).toBe("begin\nxxxx");
  expect(readdirSync(join(home, "real"))).toEqual([]);
  await own.close();
});
