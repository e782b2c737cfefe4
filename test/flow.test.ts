/** Live output on its way: bounded everywhere, in order, and never lost without a count. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { type FleetEvent, isEventName } from "../src/api/events.ts";
import { parseSse } from "../src/api/sse.ts";
import { defaultPlan, type LiveRun, startRun } from "../src/controller/fleet-run.ts";
import { runLogLimits } from "../src/controller/run-log.ts";
import { limits } from "../src/platform/limits.ts";
import { noTracer } from "../src/platform/tracer.ts";
import { eventually, type Running } from "./support/aegis.ts";
import { type Host, type Installation, installation } from "./support/installation.ts";
import { watchMemory } from "./support/memory.ts";
import { needs } from "./support/needs.ts";
import { settled } from "./support/scripted-host.ts";
import { type StrictPair, strictPair } from "./support/strict-pair.ts";

setDefaultTimeout(60_000);

const never = new AbortController().signal;
const piece = Buffer.alloc(32 * 1024, "0123456789abcdef");
/** What a host may have handed out while its reader stands still, at most. */
const most = runLogLimits.behindChars + limits.creditPerCommandBytes + 2 * piece.length;

/** A run of one call on the pair's host, and of so many on hosts that are not there. */
async function running(pair: StrictPair, absent = 0): Promise<LiveRun> {
  const { dispatcher, time, log, clock } = pair;
  const hosts = [pair.identity.nodeId, ...Array.from({ length: absent }, () => randomUUID())];
  const run = startRun(
    {
      runId: randomUUID(),
      principal: { name: "tester", tenantId: "acme", scopes: [], contexts: ["default"] },
      call: { via: "rest", context: "default", tool: "test.work", argsJson: "{}", progress: true },
      operatorProofs: {},
      plan: { ...defaultPlan, onError: "continue" },
      resolved: hosts.map((nodeId) => ({ nodeId, name: nodeId })),
      ...{ skipped: [], abortOnDisconnect: false, startedAt: time(), trace: null },
    },
    { dispatcher, clock, time, log, tracer: noTracer, recall: async () => null, settle: async () => {} },
  );
  await settled();
  await settled();
  return run;
}

/** The tool prints until it is made to wait, or has printed `total` bytes. Answers how much it could print. */
async function print(pair: StrictPair, total: number): Promise<{ bytes: number; waiting: Promise<void> | null }> {
  const { context } = pair.daemon.tool.runs.at(-1) ?? {};
  for (let bytes = 0; bytes < total; bytes += piece.length) {
    let over = false;
    const printed = Promise.resolve(context?.output("stdout", piece)).then(() => {
      over = true;
    });
    for (let turn = 0; turn < 5 && !over; turn++) await settled();
    if (!over) return { bytes: bytes + piece.length, waiting: printed };
  }
  return { bytes: total, waiting: null };
}

const outputOf = (events: readonly FleetEvent[]): Buffer =>
  Buffer.concat(
    events.flatMap(({ event, data }) => (event === "command_progress" ? [Buffer.from(data.data ?? "")] : [])),
  );

async function ready(): Promise<StrictPair> {
  const pair = await strictPair();
  await pair.connected();
  return pair;
}

describe("one host, and somebody who reads", () => {
  test("a reader that stops makes the tool wait, and gets everything once it goes on", async () => {
    const pair = await ready();
    const run = await running(pair);
    const reader = run.events.read(0, never);
    const read: FleetEvent[] = [];
    const take = async () => {
      const { value, done } = await reader.next();
      if (!done) read.push(value);
      return !done;
    };
    await take();
    const stopped = await print(pair, 64 * 1024 * 1024);
    expect(stopped.waiting).not.toBeNull();
    expect(stopped.bytes).toBeLessThanOrEqual(most);
    const rest = (async () => {
      while (await take());
    })();
    await stopped.waiting;
    const more = await print(pair, 16 * 1024 * 1024);
    expect(more.waiting).toBeNull();
    pair.daemon.tool.runs.at(-1)?.end();
    expect((await run.done).outcome).toBe("complete");
    await rest;
    const whole = Buffer.concat(Array.from({ length: (stopped.bytes + more.bytes) / piece.length }, () => piece));
    expect(outputOf(read).equals(whole)).toBe(true);
    expect(read.at(-2)).toMatchObject({ event: "command_result", data: { output: "complete" } });
  });

  test("without a reader, and after it has left, nothing waits", async () => {
    const pair = await ready();
    const run = await running(pair);
    expect((await print(pair, 12 * 1024 * 1024)).waiting).toBeNull();
    const gone = new AbortController();
    await run.events.read(0, gone.signal).next();
    const stopped = await print(pair, 64 * 1024 * 1024);
    expect(stopped.waiting).not.toBeNull();
    gone.abort();
    await stopped.waiting;
    expect((await print(pair, 12 * 1024 * 1024)).waiting).toBeNull();
  });

  test("a run ends when it is cancelled, though its reader stands still", async () => {
    const pair = await ready();
    const run = await running(pair);
    await run.events.read(0, never).next();
    await print(pair, 64 * 1024 * 1024);
    run.cancel("caller");
    expect((await run.done).outcome).toBe("cancelled");
    expect(pair.daemon.outbox.waiting).toBe(0);
  });
});

describe("several hosts", () => {
  test("none waits for a reader, who is told how much it missed", async () => {
    const pair = await ready();
    const run = await running(pair, 1);
    const reader = run.events.read(0, never);
    await reader.next();
    expect((await print(pair, 24 * 1024 * 1024)).waiting).toBeNull();
    pair.daemon.tool.runs.at(-1)?.end();
    await run.done;
    const events: FleetEvent[] = [];
    for await (const event of reader) events.push(event);
    const skipped = events.reduce(
      (sum, { event, data }) => sum + (event === "command_progress" ? data.skipped_bytes : 0),
      0,
    );
    expect(outputOf(events).length + skipped).toBe(24 * 1024 * 1024);
    expect(skipped).toBeGreaterThan(0);
  });

  test("nor for a controller that takes nothing: the host keeps the newest and counts the rest", async () => {
    const pair = await ready();
    // Whatever is taken is not heard of.
    pair.relay.down = (command, forward) => {
      if (command.sealed?.kind !== 0x12) forward(command);
    };
    const run = await running(pair, 1);
    expect((await print(pair, 8 * 1024 * 1024)).waiting).toBeNull();
    pair.daemon.tool.runs.at(-1)?.end();
    await run.done;
    const events: FleetEvent[] = [];
    for await (const event of run.events.read(0, never)) events.push(event);
    expect(outputOf(events).length).toBe(limits.firstCreditBytes);
    const result = events.find(({ event, data }) => event === "command_result" && data.outcome === "ok");
    expect(result).toMatchObject({ data: { output: "incomplete", receipt: "verified" } });
  });
});

describe("on the executable", () => {
  let site: Installation;
  let host: Host;
  beforeAll(async () => {
    site = await installation();
    host = await site.addHost("web-1", { enroll: ["--full-access"] });
  });
  afterAll(() => site.close());

  /** Bytes that a process has read from anywhere so far. */
  const readBytes = (pid: number): number =>
    Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1]);

  function curl(args: Record<string, unknown>): Running {
    const body = {
      target: { Node: "web-1" },
      tool: "cmd.run",
      args,
      context: "operator",
      policy: { deadline_secs: 600 },
    };
    const bearer = `authorization: Bearer ${site.desk.env.AEGIS_USER_TOKEN}`;
    return site.desk.startProgram(
      ...[
        ["curl", "-sN", "-H", bearer, "-H", "content-type: application/json", "--data", JSON.stringify(body)].concat(
          `${site.httpUrl}/v1/edge/fleet/invoke`,
        ),
      ],
    );
  }

  async function eventsOf(text: string): Promise<FleetEvent[]> {
    const events: FleetEvent[] = [];
    async function* bytes() {
      yield Buffer.from(text);
    }
    for await (const { id, event, data } of parseSse(bytes()))
      if (isEventName(event)) events.push({ id: Number(id), event, data: JSON.parse(data) } as FleetEvent);
    return events;
  }

  needs("linux", "command:curl")(
    "64 MiB wait for a client that stands still, in bounded memory, and arrive whole",
    async () => {
      const [daemon, controller] = [host.daemon?.pid ?? 0, site.controller.pid];
      // So that what both have once and for all is there before it is measured.
      await curl({ command: "/usr/bin/seq", args: ["1", "800000"] }).ended;
      const memory = watchMemory(() => ({ daemon, controller }));
      memory.mark();
      const last = 8_600_000;
      const client = curl({ command: "/usr/bin/seq", args: ["1", String(last)] });
      await eventually("the first output", () => client.stdout().length > 1024 * 1024);
      client.signal("SIGSTOP");
      let seen = -1;
      await eventually(
        "the daemon reads no more of the child",
        async () => {
          const now = readBytes(daemon);
          const still = now - seen < 64 * 1024;
          seen = now;
          await Bun.sleep(still ? 0 : 300);
          return still;
        },
        30_000,
      );
      const grown = memory.grown();
      memory.stop();
      expect(Math.max(grown.daemon, grown.controller)).toBeLessThan(32);
      expect(client.stdout()).not.toContain("fleet_result");
      client.signal("SIGCONT");
      const events = await eventsOf((await client.ended).stdout);
      const sum = createHash("sha256").update(outputOf(events)).digest("hex");
      const expected = createHash("sha256");
      for (let from = 1; from <= last; from += 100_000) {
        const count = Math.min(100_000, last - from + 1);
        expected.update(`${Array.from({ length: count }, (_, index) => from + index).join("\n")}\n`);
      }
      expect(sum).toBe(expected.digest("hex"));
      expect(events.find(({ event }) => event === "command_result")).toMatchObject({
        data: { ok: true, output: "complete" },
      });
    },
  );
});
