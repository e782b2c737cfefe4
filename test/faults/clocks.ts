/** Clocks that are wrong: the host's by ten years, the controller's by an hour in the middle of a session. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Requirement } from "../support/needs.ts";
import { type Fault, type FaultReport, holds, struck } from "./fault.ts";
import type { FaultStage, StageOptions } from "./stage.ts";

/** libfaketime, which the `faketime` package brings, moves the wall clock and leaves the monotonic one alone. */
const needs: Requirement[] = ["linux", "command:faketime"];
const tenYears = 3_652 * 24;

/** A wall clock that can be set while its process runs. */
function wrongClock() {
  const folder = mkdtempSync(join(tmpdir(), "aegis-clock-"));
  const file = join(folder, "offset");
  const set = (hours: number) => writeFileSync(file, `${hours < 0 ? "-" : "+"}${Math.abs(hours) * 3_600}`);
  set(0);
  const [library = "libfaketime.so.1"] = new Bun.Glob("usr/lib/*/faketime/libfaketime.so.1").scanSync("/");
  return {
    set,
    env: {
      LD_PRELOAD: join("/", library),
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    },
    remove: () => rmSync(folder, { recursive: true }),
  };
}

type WrongClock = ReturnType<typeof wrongClock>;

async function withClock(act: (clock: WrongClock) => Promise<FaultReport>): Promise<FaultReport> {
  const clock = wrongClock();
  try {
    return await act(clock);
  } finally {
    clock.remove();
  }
}

async function works(stage: FaultStage, when: string): Promise<void> {
  const result = await stage.call().result;
  holds("ok" in result && result.ok, `a call works ${when}: ${JSON.stringify(result)}`);
}

/** The session goes on, the next one begins, and whoever asks is told. */
const hostClock = (hours: number): Promise<FaultReport> =>
  withClock((clock) =>
    struck(
      { host: { env: clock.env } },
      {
        noticed: false,
        async strike(stage) {
          clock.set(hours);
          await works(stage, "in the session that was there");
          await stage.host.daemon?.stop();
          await stage.host.connect();
          // In a session that began like this.
          await stage.recovered();
        },
        async check({ host }) {
          clock.set(hours);
          const { stdout, stderr } = await host.run("doctor");
          const [said] = /this machine's clock is .* the controller's/.exec(stdout + stderr) ?? [];
          const side = hours < 0 ? "behind" : "ahead of";
          holds(said?.includes(side) === true, `doctor names it: ${stdout}${stderr}`);
          return `doctor: ${said}`;
        },
        heal: () => clock.set(0),
      },
    ),
  );

const controllerClock = (hours: number): Promise<FaultReport> =>
  withClock((clock) => {
    const before = ["env", ...Object.entries(clock.env).map(([name, value]) => `${name}=${value}`)];
    const options: StageOptions = { site: { before } };
    return struck(options, {
      noticed: false,
      async strike(stage) {
        clock.set(hours);
        await works(stage, "in the session that was there");
      },
      lastsMs: 1_000,
      heal: () => clock.set(0),
      check({ host }) {
        holds(!/"event":"disconnected"/.test(host.daemon?.stderr() ?? ""), "the session goes on");
        return "the session goes on";
      },
    });
  });

export const clockFaults: Fault[] = [
  {
    ...{ name: "the host's clock ten years ahead", needs, smoke: true },
    run: () => hostClock(tenYears),
  },
  {
    ...{ name: "the host's clock ten years behind", needs, smoke: true },
    run: () => hostClock(-tenYears),
  },
  {
    ...{ name: "the controller's clock an hour back, mid-session", needs, smoke: true },
    run: () => controllerClock(-1),
  },
];
