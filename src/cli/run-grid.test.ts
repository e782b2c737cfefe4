import { expect, test } from "bun:test";
import { fakeClock } from "../../test/support/fake-clock.ts";
import { screenOf } from "../../test/support/screen.ts";
import type { FleetEvent } from "../api/events.ts";
import { gridView } from "./run-grid.ts";

const node = (number: number) => `${String(number).padStart(8, "0")}-0000-4000-8000-000000000000`;
const pipe = { head: "", tail: "", bytes: 0, omitted: 0, encoding: "utf8" } as const;

function stage(columns = 80) {
  let bytes = "";
  const clock = fakeClock();
  const write = (text: string) => {
    bytes += text;
  };
  const view = gridView(
    {
      columns,
      draw: write,
      note: (text) => write(`${text}\n`),
      data: async (chunk) => write(Buffer.from(chunk as Uint8Array).toString()),
      passthrough: async (chunk) => write(Buffer.from(chunk).toString()),
    },
    clock,
  );
  let id = 0;
  const show = (event: FleetEvent["event"], data: unknown) => view.show({ id: ++id, event, data } as FleetEvent);
  return {
    clock,
    end: view.end,
    screen: () => screenOf(bytes),
    written: () => bytes.length,
    begin: (count: number) =>
      show("started", {
        run_id: "r",
        resolved: Array.from({ length: count }, (_, at) => node(at)),
        skipped: [],
        waves: null,
      }),
    start: (at: number) => show("node_started", { run_id: "r", node_id: node(at), name: `web-${at}`, command_id: "c" }),
    print: (at: number, data: string) =>
      show("command_progress", {
        node_id: node(at),
        command_id: "c",
        stream: "stdout",
        seq: 0,
        offset: 0,
        data,
        skipped_bytes: 0,
      }),
    finish: (at: number, outcome: "ok" | "err") =>
      show("command_result", {
        ...{
          node_id: node(at),
          name: `web-${at}`,
          command_id: "c",
          ok: outcome === "ok",
          outcome,
          exit_code: 3,
          signal: null,
        },
        ...{ error_kind: outcome === "ok" ? null : "nonzero_exit", error_message: null, duration_ms: 1 },
        ...{ stdout: pipe, stderr: pipe, structured: null, job_id: null, late: false, output: "complete" },
        ...{ receipt: "verified", receipt_proof: null },
      }),
    close: () =>
      show("fleet_result", {
        ...{
          run_id: "r",
          outcome: "complete",
          started_at: "2026-01-01T00:00:00.000Z",
          ended_at: "2026-01-01T00:00:01.000Z",
        },
        summary: { ok: 1, err: 1, timed_out: 0, cancelled: 0, edge_disconnected: 0, skipped: 0, not_started: 0 },
      }),
  };
}

test("what hosts print scrolls by, and below it stands what each is doing", async () => {
  const { clock, end, screen, begin, start, print, finish, close } = stage();
  await begin(3);
  await start(0);
  await start(1);
  await print(0, "step 1\nstep 2");
  await clock.advance(2_100);
  expect(screen()).toEqual([
    "run r on 3 hosts",
    "web-0 | step 1",
    "web-0    2s  step 2",
    "web-1    2s  ",
    "2 running, 1 waiting, 0 ok",
    "",
  ]);
  await finish(0, "ok");
  await finish(1, "err");
  await clock.advance(300);
  expect(screen()).toEqual([
    "run r on 3 hosts",
    "web-0 | step 1",
    "web-0 | step 2",
    "web-1: exit 3",
    "0 running, 1 waiting, 1 ok, 1 failed",
    "",
  ]);
  await close();
  await end();
  expect(screen().slice(-2)).toEqual(["complete: 1 ok, 1 failed", ""]);
  expect(clock.sleeping).toBe(0);
});

test("a line never breaks, and hosts beyond ten are counted", async () => {
  const { clock, end, screen, begin, start, print } = stage(30);
  await begin(14);
  for (let at = 0; at < 12; at++) await start(at);
  await print(0, `${"x".repeat(100)}\u001b[2J`);
  await clock.advance(300);
  const rows = screen();
  expect(rows).toHaveLength(1 + 10 + 1 + 1);
  expect(rows[1]).toBe(`web-0     0s  ${"x".repeat(14)}\u2026`);
  expect(rows[11]).toStartWith("12 running (2 not shown), 2 ");
  for (const row of rows) expect(row.length).toBeLessThan(30);
  await end();
});

test("much output is drawn at the pace of a person", async () => {
  const { end, written, begin, start, print } = stage();
  await begin(1);
  await start(0);
  for (let line = 0; line < 1000; line++) await print(0, ".");
  expect(written()).toBeLessThan(300);
  await end();
});
