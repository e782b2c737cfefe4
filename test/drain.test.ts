/** How a daemon ends: what runs may finish, what does not is ended and reported, and the controller has all of it first. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import type { CommandResult, FleetEvent } from "../src/api/events.ts";
import { drainGraceMs } from "../src/daemon/run.ts";
import { type Clock, systemClock } from "../src/platform/clock.ts";
import { type BareHost, bareHost, type Enrolling, enrolling } from "./support/enrolling.ts";

let controller: Enrolling;
let host: BareHost;

beforeAll(async () => {
  controller = await enrolling();
});
afterAll(() => controller.remove());
beforeEach(async () => {
  host = bareHost();
  await host.enroll(await controller.issue(), { fullAccess: true });
});
afterEach(() => host.remove());

/** The same clock, on which the time given to running calls is over soon. */
const hasty: Clock = {
  ...systemClock,
  sleep: (ms, signal) => systemClock.sleep(ms === drainGraceMs ? 300 : ms, signal),
};

const connected = async () => {
  for (;;) {
    const { items } = await controller.api.hosts({ connected: true });
    if (items.length > 0) return;
    await systemClock.sleep(10, AbortSignal.any([]));
  }
};

/** Starts a command; `running` resolves once it has printed something. */
function call(command: string, ...args: string[]) {
  const running = Promise.withResolvers<void>();
  const result = (async () => {
    let found: CommandResult | null = null;
    const request = { target: "All", tool: "cmd.run", context: "operator", args: { command, args } } as const;
    const events: AsyncIterable<FleetEvent> = controller.api.invoke(request, { signal: AbortSignal.any([]) });
    for await (const event of events) {
      if (event.event === "command_progress") running.resolve();
      if (event.event === "command_result") found = event.data;
    }
    if (!found) throw new Error("no result came");
    return found;
  })();
  return { running: running.promise, result };
}

test("a call that ends in time is delivered before the stream closes, and a new one is refused meanwhile", async () => {
  const daemon = await host.run();
  await connected();
  const slow = call("/bin/sh", "-c", "echo started; sleep 1; echo done");
  await slow.running;
  const stopped = daemon.stop();
  const late = await call("/bin/echo", "late").result;
  expect(late).toMatchObject({ ok: false, error_kind: "draining" });
  const result = await slow.result;
  expect(result).toMatchObject({ ok: true, outcome: "ok", receipt: "verified" });
  expect(result.stdout.head).toBe("started\ndone\n");
  await stopped;
  expect(JSON.parse(host.text("run/status.json"))).toMatchObject({ state: "stopped", activeCalls: 0 });
  expect(daemon.log.events()).not.toContain("results_undelivered");
});

test("a call that does not end is ended with all it started, and reported as edge_disconnected", async () => {
  const daemon = await host.run({ clock: hasty });
  await connected();
  const endless = call("/bin/sh", "-c", "echo started; sleep 1000 & wait");
  await endless.running;
  const stopped = daemon.stop();
  const result = await endless.result;
  expect(result).toMatchObject({ ok: false, error_kind: "edge_disconnected", receipt: "verified" });
  expect(result.stdout.head).toBe("started\n");
  await stopped;
});

test("a daemon that waits for its controller ends at once", async () => {
  writeFileSync(
    host.file("aegis-config.yaml"),
    host.text("aegis-config.yaml").replaceAll(`localhost:${controller.port}`, "localhost:1"),
  );
  const waiting = Promise.withResolvers<void>();
  const { log, stop } = await host.run(
    { onState: (state) => state === "waiting" && waiting.resolve() },
    () => waiting.promise,
  );
  expect(log.find("disconnected")?.reason).toMatch(
    /^cannot reach the controller at https:\/\/localhost:1: connect ECONNREFUSED [^ ]+:1$/,
  );
  const before = systemClock.monotonic();
  await stop();
  expect(systemClock.monotonic() - before).toBeLessThan(500);
});

test("a second daemon on the same directory is refused and does not disturb the first", async () => {
  const daemon = await host.run();
  expect((await host.refusal()).message).toContain("a daemon runs with");
  await connected();
  expect(await call("/bin/echo", "still here").result).toMatchObject({ ok: true, error_message: null });
  await daemon.stop();
});

test("with once, a connection that cannot be made is the failure", async () => {
  writeFileSync(
    host.file("aegis-config.yaml"),
    host.text("aegis-config.yaml").replaceAll(`localhost:${controller.port}`, "localhost:1"),
  );
  const error = await host.refusal();
  expect(error).toMatchObject({ code: "unavailable", exitCode: 5 });
});
