import { describe, expect, test } from "bun:test";
import type { CommandResult, FleetEvent, NewFleetEvent, RunSummary } from "../api/events.ts";
import { AegisError } from "../errors.ts";
import { linesView } from "./run-lines.ts";
import { recordsView } from "./run-records.ts";
import { exitOf, followRun, type RunReport, summaryWords } from "./run-report.ts";

const noSummary: RunSummary = {
  ok: 0,
  err: 0,
  timed_out: 0,
  cancelled: 0,
  edge_disconnected: 0,
  skipped: 0,
  not_started: 0,
};
const pipe = { head: "", tail: "", bytes: 0, omitted: 0, encoding: "utf8" } as const;
const web1 = "11111111-0000-4000-8000-000000000000";
const web2 = "22222222-0000-4000-8000-000000000000";

const result = (node_id: string, over: Partial<CommandResult> = {}): NewFleetEvent => ({
  event: "command_result",
  data: {
    ...{
      node_id,
      name: node_id,
      command_id: "c",
      ok: true,
      outcome: "ok",
      exit_code: 0,
      signal: null,
      error_kind: null,
    },
    ...{ error_message: null, duration_ms: 1, stdout: pipe, stderr: pipe, structured: null, job_id: null, late: false },
    ...{ output: "complete", receipt: "verified", receipt_proof: null },
    ...over,
  },
});
const failed = { ok: false, outcome: "err", error_kind: "nonzero_exit", exit_code: 3 } as const;
const nodeStarted = (node_id: string, name: string): NewFleetEvent => ({
  event: "node_started",
  data: { run_id: "r", node_id, name, command_id: "c" },
});
const output = (node_id: string, stream: "stdout" | "stderr", data: string, skipped_bytes = 0): NewFleetEvent => ({
  event: "command_progress",
  data: { node_id, command_id: "c", stream, seq: 0, offset: 0, data, skipped_bytes },
});
const started = (skipped: { node_id: string; name: string; reason: "disconnected" }[] = []): NewFleetEvent => ({
  event: "started",
  data: { run_id: "r", resolved: [web1, web2], skipped, waves: null },
});
const ended = (outcome: RunReport["outcome"], summary: Partial<RunSummary> = {}): NewFleetEvent => ({
  event: "fleet_result",
  data: {
    ...{ run_id: "r", outcome, summary: { ...noSummary, ...summary } },
    ...{ started_at: "2026-01-01T00:00:00.000Z", ended_at: "2026-01-01T00:00:01.000Z" },
  },
});

/** A controller that says these things, and after `hold` only what a cancel makes it say. */
function controller(events: NewFleetEvent[], afterCancel: NewFleetEvent[] | Error = []) {
  const cancelled: string[] = [];
  let release: () => void = () => {};
  const waits = new Promise<void>((resolve) => {
    release = resolve;
  });
  return {
    cancelled,
    async *invoke(_: unknown, { signal }: { signal: AbortSignal }): AsyncGenerator<FleetEvent> {
      let id = 0;
      for (const event of events) yield { id: ++id, ...event } as FleetEvent;
      if (events.at(-1)?.event === "fleet_result") return;
      const hard = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      await Promise.race([waits, hard]);
      if (signal.aborted) throw new AegisError("cancelled", "cancelled");
      if (Array.isArray(afterCancel)) for (const event of afterCancel) yield { id: ++id, ...event } as FleetEvent;
    },
    async cancel(runId: string) {
      cancelled.push(runId);
      if (afterCancel instanceof Error) throw afterCancel;
      release();
      return { run_id: runId, cancelled: 1, already_terminal: 0 };
    },
    sign: async (runId: string) => ({ run_id: runId, taken: [] }),
  };
}

const quiet = { show: async () => {}, end: async () => {} };
const request = { target: "All", tool: "cmd.run" } as const;
const never = new AbortController().signal;

function screen() {
  let out = "";
  let err = "";
  const add = async (chunk: string | Uint8Array) => {
    out += Buffer.from(chunk as Uint8Array).toString();
  };
  const terminal = {
    data: add,
    passthrough: async (chunk: Uint8Array) => {
      err += Buffer.from(chunk).toString();
    },
    note: (text: string) => {
      err += `${text}\n`;
    },
  };
  return { terminal, out: () => out, err: () => err };
}

describe("a run is followed", () => {
  test("to its end, and each host's answer is kept", async () => {
    const events = [
      started(),
      nodeStarted(web1, "web-1"),
      result(web1, { name: "web-1" }),
      ended("complete", { ok: 1 }),
    ];
    const report = await followRun(controller(events), request, quiet, never);
    expect(report).toMatchObject({ runId: "r", outcome: "complete", refusal: null });
    expect([...report.names]).toEqual([[web1, "web-1"]]);
    expect(report.results.get(web1)?.ok).toBe(true);
  });

  test("a host that was never asked is called by its name too", async () => {
    const { terminal, err } = screen();
    const gone = { name: "web-2", ok: false, outcome: "not_started", error_kind: null } as const;
    await followRun(controller([started(), result(web2, gone), ended("halted")]), request, linesView(terminal), never);
    expect(err()).toContain("web-2: not_started\n");
    expect(err()).not.toContain(web2);
  });

  test("after Ctrl-C it is cancelled at the controller, once, and followed until its hosts have stopped", async () => {
    const stop = new AbortController();
    const told = [result(web1, { ok: false, outcome: "cancelled" }), ended("cancelled", { cancelled: 1 })];
    const server = controller([started(), nodeStarted(web1, "web-1")], told);
    const view = {
      ...quiet,
      show: async ({ event }: FleetEvent) => {
        if (event === "node_started") stop.abort();
      },
    };
    const report = await followRun(server, request, view, stop.signal);
    expect(server.cancelled).toEqual(["r"]);
    expect(exitOf(report)).toBe(7);
  });

  test("a Ctrl-C before the first event cancels as soon as there is something to cancel", async () => {
    const stop = new AbortController();
    stop.abort();
    const server = controller([started()], [ended("cancelled")]);
    await followRun(server, request, quiet, stop.signal);
    expect(server.cancelled).toEqual(["r"]);
  });

  test("a cancel that the controller does not take ends the reading with the reason", async () => {
    const stop = new AbortController();
    stop.abort();
    const server = controller([started()], new AegisError("unavailable", "cannot reach the controller"));
    const outcome = await followRun(server, request, quiet, stop.signal).catch((error: AegisError) => error.message);
    expect(outcome).toBe("cannot reach the controller");
  });

  test("events that end too early are no success", async () => {
    const server = { ...controller([]), invoke: async function* () {} };
    const outcome = await followRun(server, request, quiet, never).catch((error: AegisError) => error.code);
    expect(outcome).toBe("unavailable");
  });
});

describe("the exit status", () => {
  type Skipped = RunReport["skipped"][number]["reason"];
  const exit = (
    outcome: RunReport["outcome"],
    summary: Partial<RunSummary>,
    code?: string | null,
    skipped: Skipped[] = [],
  ) =>
    exitOf({
      ...{ runId: "r", outcome, summary: { ...noSummary, ...summary }, results: new Map(), names: new Map() },
      skipped: skipped.map((reason) => ({ node_id: "x", name: "x", reason })),
      refusal: code ? { code, message: "" } : null,
      doubts: new Map(),
    });

  const cases: [string, number, Parameters<typeof exit>][] = [
    ["every host succeeded", 0, ["complete", { ok: 3 }]],
    ["some were skipped", 0, ["complete", { ok: 3, skipped: 2 }]],
    ["one host failed", 6, ["complete", { ok: 3, err: 1 }]],
    ["one host was lost", 6, ["complete", { ok: 3, edge_disconnected: 1 }]],
    ["one failed and one ran out of time", 6, ["complete", { ok: 3, err: 1, timed_out: 1 }]],
    ["the run was halted", 6, ["halted", { ok: 3, err: 1, not_started: 4 }]],
    ["the run was interrupted", 6, ["interrupted", { ok: 3 }]],
    ["it was cancelled", 7, ["cancelled", { ok: 3, err: 1, cancelled: 2 }]],
    ["hosts only ran out of time", 8, ["complete", { ok: 3, timed_out: 1 }]],
    ["a time-out halted it", 8, ["halted", { timed_out: 1, cancelled: 3 }]],
    ["there were too few hosts", 9, ["refused", {}, "require_min_not_met"]],
    ["it was refused for what the caller may not do", 3, ["refused", {}, "forbidden"]],
    ["it was refused for a reason this version does not know", 1, ["refused", {}, "moon_phase"]],
    ["no host could be reached", 5, ["complete", { skipped: 2 }, null, ["disconnected", "tool_missing"]]],
    ["the hosts that are there do not have the tool", 6, ["complete", { skipped: 1 }, null, ["tool_missing"]]],
    ["no host matched", 5, ["complete", {}]],
  ];
  for (const [name, status, args] of cases) test(`is ${status} when ${name}`, () => expect(exit(...args)).toBe(status));
});

test("the sum names what happened and leaves out what did not", () => {
  expect(summaryWords({ ...noSummary, ok: 3 })).toBe("3 ok");
  expect(summaryWords({ ...noSummary, err: 1, skipped: 2 })).toBe("0 ok, 1 failed, 2 skipped");
});

test("the exit status is 6 when what is told of a host is doubted, or when a host failed that the sum does not count", () => {
  const report: RunReport = {
    ...{
      runId: "r",
      outcome: "complete",
      summary: { ...noSummary, ok: 1 },
      names: new Map(),
      skipped: [],
      refusal: null,
    },
    ...{ results: new Map(), doubts: new Map() },
  };
  expect(exitOf(report)).toBe(0);
  expect(exitOf({ ...report, doubts: new Map([["n", "its receipt is another's"]]) })).toBe(6);
  const failed = { ok: false, outcome: "not_started" } as CommandResult;
  expect(exitOf({ ...report, results: new Map([["n", failed]]) })).toBe(6);
});

test("lines: output by host, failures and the sum apart from it", async () => {
  const { terminal, out, err } = screen();
  const events = [
    started([{ node_id: "x", name: "db-1", reason: "disconnected" }]),
    nodeStarted(web1, "web"),
    nodeStarted(web2, "web"),
    output(web1, "stdout", "a\nb"),
    output(web2, "stderr", "oops\n", 7),
    result(web1),
    result(web2, failed),
    ended("complete", { ok: 1, err: 1, skipped: 1 }),
  ];
  await followRun(controller(events), request, linesView(terminal), never);
  expect(out()).toBe("web | a\nweb | b\n");
  expect(err().split("\n")).toEqual([
    "run r on 2 hosts",
    "db-1: skipped, disconnected",
    "web(22222222) | oops",
    "web(22222222): 7 bytes of its output came too fast and are not shown",
    "web(22222222): exit 3",
    "complete: 1 ok, 1 failed, 1 skipped",
    "",
  ]);
});

test("lines: what a tool answers at its end is shown, and what a command printed while it ran not again", async () => {
  const { terminal, out, err } = screen();
  const note = "the service's sandbox hides it";
  const events = [
    ...[started(), nodeStarted(web1, "web-1"), nodeStarted(web2, "web-2"), output(web2, "stdout", "b\n")],
    result(web1, { stdout: { ...pipe, head: '{"content":', tail: '"x"}\n', bytes: 16 } }),
    result(web2, { ...failed, stdout: { ...pipe, head: "b\n", bytes: 2 }, structured: { note } }),
    ended("complete", { ok: 1, err: 1 }),
  ];
  await followRun(controller(events), request, linesView(terminal), never);
  expect(out()).toBe('web-2 | b\nweb-1 | {"content":"x"}\n');
  expect(err()).toContain(`web-2: exit 3; ${note}\n`);
});

test("lines: what a host printed last is shown once that host is done, not when all are", async () => {
  const { terminal, out } = screen();
  const events = [
    ...[started(), nodeStarted(web1, "web-1"), nodeStarted(web2, "web-2")],
    ...[
      output(web1, "stdout", "a"),
      result(web1),
      output(web2, "stdout", "b\n"),
      result(web2),
      ended("complete", { ok: 2 }),
    ],
  ];
  await followRun(controller(events), request, linesView(terminal), never);
  expect(out()).toBe("web-1 | a\nweb-2 | b\n");
});

test("records: one JSON line an event, or one YAML document", async () => {
  const events = [started(), ended("complete", { ok: 1 })];
  const json = screen();
  await followRun(controller(events), request, recordsView(json.terminal, "json"), never);
  const lines = json
    .out()
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines[0]).toEqual({ event: "started", id: 1, ...events[0]?.data });
  expect(lines[1]).toMatchObject({ event: "fleet_result", id: 2, outcome: "complete" });
  const yaml = screen();
  await followRun(controller(events), request, recordsView(yaml.terminal, "yaml"), never);
  expect(
    yaml
      .out()
      .split("---\n")
      .slice(1)
      .map((document) => Bun.YAML.parse(document)),
  ).toEqual(lines);
});
