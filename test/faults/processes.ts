/** Processes that are killed, stopped and started again. */
import { cpSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../support/aegis.ts";
import { type Fault, holds, struck } from "./fault.ts";
import { type FaultStage, onStage } from "./stage.ts";

const kill = async ({ site }: FaultStage) => void (await site.controller.stop("SIGKILL"));
const restart = ({ site }: FaultStage) => site.restartController();
const daemonPid = ({ host }: FaultStage): number => host.daemon?.pid ?? 0;

export const processFaults: Fault[] = [
  {
    ...{ name: "controller killed (SIGKILL) and started again", needs: [], smoke: true },
    run: () => struck({}, { strike: kill, heal: restart }),
  },
  {
    ...{ name: "controller restarted in order, mid-call", needs: [], smoke: true },
    run: () =>
      struck(
        {},
        {
          long: "sleep 2; echo done",
          strike: async ({ site }) => void (await site.controller.stop("SIGTERM")),
          heal: restart,
        },
      ),
  },
  controllerStopped(45, false),
  controllerStopped(3, true),
  {
    ...{ name: "daemon killed (SIGKILL) mid-call and started again", needs: [], smoke: true, mayLose: true },
    run: () =>
      struck(
        {},
        {
          long: "sleep 30",
          strike: async ({ host }) => void (await host.daemon?.stop("SIGKILL")),
          heal: async ({ host }) => void (await host.connect()),
          check: () => "what ran is not run again",
        },
      ),
  },
  daemonStopped(150, false),
  daemonStopped(3, true),
  {
    ...{ name: "two hosts with one key (a cloned machine)", needs: [], smoke: false },
    run: () =>
      onStage({}, async (stage) => {
        const { site, host } = stage;
        const clone = site.place.machine("clone");
        mkdirSync(join(clone.home, ".aegis"), { recursive: true });
        cpSync(host.stateDir, join(clone.home, ".aegis/edge"), {
          recursive: true,
          filter: (path) => !path.endsWith("/run"),
        });
        stage.memory.mark();
        stage.arm();
        const stop = stage.load(1);
        const second = clone.start("edge", "run");
        const noticedMs = await stage.noticed();
        await site.controller.until(/"event":"node_contended"/, 120_000);
        await second.stop();
        const recoveredMs = await stage.recovered();
        await stop();
        const ledger = await stage.ledger();
        const growth = stage.memory.grown();
        return { noticedMs, recoveredMs, ledger, growth, note: "alarm node_contended" };
      }),
    mayLose: true,
  },
  {
    ...{ name: "descriptors used up (RLIMIT_NOFILE)", needs: ["command:prlimit"], smoke: true },
    run: () =>
      struck(
        {},
        {
          noticed: false,
          strike: async (stage) => {
            const pid = daemonPid(stage);
            const open = Bun.spawnSync(["sh", "-c", `ls /proc/${pid}/fd | wc -l`])
              .stdout.toString()
              .trim();
            Bun.spawnSync(["prlimit", `--pid=${pid}`, `--nofile=${open}:4096`]);
            const burst = Array.from({ length: 12 }, () => stage.call("sleep 0.2").result);
            const failed = (await Promise.all(burst)).filter((result) => !("ok" in result && result.ok));
            holds(failed.length > 0, "some calls failed while no descriptor was left");
            const lies = failed.filter((result) => /does not exist|not found/.test(JSON.stringify(result)));
            holds(lies.length === 0, `nothing else is blamed for it: ${JSON.stringify(lies[0])}`);
          },
          heal: (stage) => {
            Bun.spawnSync(["prlimit", `--pid=${daemonPid(stage)}`, "--nofile=4096:4096"]);
          },
          async check({ host }) {
            await eventually("the daemon lives", () => host.daemon !== null && processLives(host.daemon.pid));
            return "the daemon lives";
          },
        },
      ),
  },
];

/** Stopped for longer than a path may be silent, the session ends; for a moment, it need not. */
const endsSession = (seconds: number) => (seconds < 30 ? { noticed: false } : {});

function controllerStopped(seconds: number, smoke: boolean): Fault {
  return {
    ...{ name: `controller stopped for ${seconds} s (SIGSTOP)`, needs: [], smoke },
    run: () =>
      struck(
        {},
        {
          ...endsSession(seconds),
          strike: ({ site }) => site.controller.signal("SIGSTOP"),
          lastsMs: seconds * 1_000,
          heal: ({ site }) => site.controller.signal("SIGCONT"),
        },
      ),
  };
}

function daemonStopped(seconds: number, smoke: boolean): Fault {
  return {
    ...{ name: `daemon stopped for ${seconds} s (a laptop asleep)`, needs: [], smoke },
    run: () =>
      struck(
        {},
        {
          ...endsSession(seconds),
          strike: ({ host }) => host.daemon?.signal("SIGSTOP"),
          lastsMs: seconds * 1_000,
          heal: ({ host }) => host.daemon?.signal("SIGCONT"),
          check({ host }) {
            const said = host.daemon?.stderr() ?? "";
            const ended = /stood still|closed the stream|Ping timeout|UNAVAILABLE|disconnected/.test(said);
            holds(ended || seconds < 30, "the old session ended");
            return undefined;
          },
        },
      ),
  };
}

function processLives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
