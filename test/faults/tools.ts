/** Commands that do not behave: deaf, endless, loud, orphaned, cancelled by the thousand. */
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { processesWith } from "../support/aegis.ts";
import { type Fault, type FaultReport, fullSpeedMb, holds, manyCallsMb } from "./fault.ts";
import { type FaultStage, onStage } from "./stage.ts";

/** The same in every row: what the call did, and that the host goes on. */
const shown = (act: (stage: FaultStage) => Promise<string | undefined>): Promise<FaultReport> =>
  onStage({}, async (stage) => {
    await stage.recovered();
    stage.memory.mark();
    const note = await act(stage);
    const recoveredMs = await stage.recovered();
    const growth = stage.memory.grown();
    const ledger = await stage.ledger();
    return { noticedMs: null, recoveredMs, ledger, growth, ...(note === undefined ? {} : { note }) };
  });

async function outcome(stage: FaultStage, script: string, deadlineSecs: number) {
  const result = await stage.call(script, deadlineSecs).result;
  if ("error" in result) throw new Error(result.error);
  return result;
}

const noneLeft = (marker: string) => {
  const left = processesWith(marker).length;
  holds(left === 0, `nothing is left running: ${left}`);
};

/** A command line that nothing else on this machine has. */
const marker = () => `9${Math.floor(Math.random() * 1e9)}`;

export const toolFaults: Fault[] = [
  {
    ...{ name: "a command that ignores SIGTERM", needs: [], smoke: true },
    run: () =>
      shown(async (stage) => {
        const mark = marker();
        const script = `trap '' TERM; while :; do sleep ${mark} & wait; done`;
        const result = await outcome(stage, script, 1);
        holds(result.outcome === "timed_out", `it timed out: ${result.outcome}`);
        noneLeft(mark);
        return `ended after ${result.duration_ms} ms`;
      }),
  },
  {
    ...{ name: "a command that leaves its group", needs: ["command:setsid"], smoke: true },
    run: () =>
      shown(async (stage) => {
        const mark = marker();
        const result = await outcome(stage, `setsid sleep ${mark} & sleep 30`, 1);
        holds(result.outcome === "timed_out", `it timed out: ${result.outcome}`);
        noneLeft(mark);
        return "found and ended";
      }),
  },
  {
    ...{ name: "a command that ends while a grandchild holds its pipe", needs: [], smoke: true },
    run: () =>
      shown(async (stage) => {
        const mark = marker();
        const begun = performance.now();
        const result = await outcome(stage, `(sleep ${mark} &) ; echo parent done`, 20);
        const tookMs = performance.now() - begun;
        holds(tookMs < 19_000, `it does not wait for the deadline: ${Math.round(tookMs)} ms`);
        holds(result.stdout.head === "parent done\n", `what was printed arrives: ${JSON.stringify(result.stdout)}`);
        noneLeft(mark);
        return `answered after ${Math.round(tookMs)} ms`;
      }),
  },
  {
    // Zero bytes, of which each is six characters in JSON.
    ...{ name: "a command that fills both pipes", needs: [], smoke: true, maxMb: fullSpeedMb },
    run: () =>
      shown(async (stage) => {
        const script =
          "i=0; while [ $i -lt 64 ]; do head -c 65536 /dev/zero; head -c 65536 /dev/zero >&2; i=$((i+1)); done";
        const result = await outcome(stage, script, 60);
        holds(result.ok, `it ends: ${result.error_message}`);
        const bytes = [result.stdout.bytes, result.stderr.bytes];
        holds(
          bytes.every((one) => one === 64 * 65_536),
          `every byte is counted: ${bytes}`,
        );
        return "4 MiB on each pipe";
      }),
  },
  {
    ...{ name: "a command that prints what is no UTF-8", needs: [], smoke: true },
    run: () =>
      shown(async (stage) => {
        const { stdout } = await outcome(stage, "printf '\\377\\376\\000ok\\303'", 60);
        const bytes = Buffer.from(stdout.head, stdout.encoding === "base64" ? "base64" : "utf8");
        holds(
          bytes.equals(Buffer.from([0xff, 0xfe, 0, 0x6f, 0x6b, 0xc3])),
          `the bytes arrive: ${JSON.stringify(stdout)}`,
        );
        return stdout.encoding;
      }),
  },
  prints("1 GiB", 1024, false),
  prints("64 MiB", 64, true),
  {
    ...{ name: "1 GiB waits for a reader that stands still", needs: ["linux"], smoke: false, maxMb: fullSpeedMb },
    run: () => shown(pending),
  },
  cancels(60, true),
  cancels(10_000, false),
];

/** Lines of numbers, 1 GiB and a little. */
const gibibyte = "seq 118500000";
const standsStillMs = 10_000;
/** What a reader that stands still may cost each process, in MB. */
const maxPendingMb = 32;

/** Nobody reads for a while: the command waits, and so little of its output is anywhere in memory. Then all of it arrives. */
async function pending({ site, memory }: FaultStage): Promise<string> {
  const sum = Bun.spawn(["sh", "-c", `${gibibyte} | sha256sum`], { stdout: "pipe" });
  const reader = Bun.spawn(
    [process.execPath, join(import.meta.dir, "../support/output-reader.ts"), site.httpUrl, "victim", gibibyte],
    {
      env: { ...process.env, ...site.desk.env },
      stdout: "pipe",
    },
  );
  const lines = readLines(reader.stdout);
  try {
    holds((await lines.next()).value?.begun === true, "the first output arrives");
    reader.kill("SIGSTOP");
    await Bun.sleep(standsStillMs);
    const meanwhile = memory.grown();
    const most = Math.max(meanwhile.daemon, meanwhile.controller);
    holds(most <= maxPendingMb, `at most ${maxPendingMb} MB more wait in memory: ${JSON.stringify(meanwhile)}`);
    reader.kill("SIGCONT");
    const { value: read } = await lines.next();
    const [expected = ""] = (await new Response(sum.stdout).text()).split(" ");
    const whole = read?.sha256 === expected && read.ok === true && read.output === "complete";
    holds(whole && read.skipped === 0, `all of it arrives, in order: ${JSON.stringify(read)}`);
    const { daemon, controller } = meanwhile;
    return `${read?.bytes} bytes, sha256 equal; ${Math.round(daemon)} + ${Math.round(controller)} MB more while it waits`;
  } finally {
    reader.kill("SIGKILL");
    sum.kill();
  }
}

async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<Record<string, unknown>> {
  for await (const line of createInterface({ input: Readable.fromWeb(stream as never) })) yield JSON.parse(line);
}

function cancels(times: number, smoke: boolean): Fault {
  return {
    ...{ name: `${times.toLocaleString("en").replace(",", " ")} calls that are cancelled`, needs: [], smoke },
    maxMb: manyCallsMb,
    run: () =>
      shown(async (stage) => {
        const mark = marker();
        const atOnce = 12;
        let cancelled = 0;
        let begun = 0;
        const one = async () => {
          while (begun < times) {
            begun++;
            const args = { command: "/bin/sh", args: ["-c", `sleep ${mark}`] };
            const run = stage.api.invoke(
              { target: { Node: "victim" }, tool: "cmd.run", context: "operator", args },
              { signal: AbortSignal.timeout(120_000) },
            );
            for await (const { event, data } of run) {
              if (event === "node_started") void stage.api.cancel(data.run_id).catch(() => {});
              if (event === "fleet_result" && data.outcome === "cancelled") cancelled++;
            }
          }
        };
        await Promise.all(Array.from({ length: atOnce }, one));
        holds(cancelled >= times, `every call ends as cancelled: ${cancelled} of ${times}`);
        noneLeft(mark);
        return `${cancelled} cancelled`;
      }),
  };
}

function prints(amount: string, mebibytes: number, smoke: boolean): Fault {
  return {
    ...{ name: `a command that prints ${amount}`, needs: [], smoke, maxMb: fullSpeedMb },
    run: () =>
      shown(async (stage) => {
        const bytes = mebibytes * 1024 * 1024;
        const begun = performance.now();
        const result = await outcome(stage, `yes | head -c ${bytes}`, 140);
        const counted = result.ok && result.stdout.bytes === bytes;
        holds(counted, `all of it is counted: ${result.stdout.bytes} ${result.error_message}`);
        return `${Math.round(mebibytes / ((performance.now() - begun) / 1000))} MiB/s`;
      }),
  };
}
