/** `edge log`: the host's own record of every call, as its owner reads it. */
import { type OwnerCall, ownerCalls } from "../../daemon/owner-calls.ts";
import { readOwnerLog } from "../../daemon/owner-log.ts";
import { readStatus } from "../../daemon/status.ts";
import { command } from "../command.ts";
import { edgeDir, outputFlag, printResult, stateDirFlag } from "../options.ts";
import { table } from "../terminal.ts";
import { visibleJson } from "../visible.ts";
import { enrolledDir } from "./enrolled.ts";

export default command({
  example: "aegis edge log | tail",
  details: `Every call that reached this host, the oldest first: who asked, for what, what this host said to it, and how it ended. The
record is kept here and by this host alone, so it is true whatever a controller says. It holds some 40 000 calls, then the
oldest go.`,
  args: { "state-dir": stateDirFlag, output: outputFlag },
  async run(given) {
    const stateDir = await enrolledDir(edgeDir(given.args["state-dir"], given));
    const { lines, damaged } = await readOwnerLog(stateDir);
    const lost = lines.reduce((sum, line) => sum + (line.event === "lost" ? line.lines : 0), 0);
    const calls = ownerCalls(lines, (await readStatus(stateDir))?.alive ?? false);
    await printResult(given, given.args.output, calls, () =>
      table(["AT", "WHO", "CONTEXT", "WHAT", "VERDICT", "BY", "OUTCOME", "MS"], calls.map(row)),
    );
    if (damaged > 0) given.terminal.warn(`${damaged} lines of the record are damaged and not shown`);
    if (lost > 0) given.terminal.warn(`${lost} lines were never written, because the disk took none`);
    return undefined;
  },
});

/** Longest part of the arguments that a row shows; `-o json` has more. */
const maxShownChars = 100;

function row(call: OwnerCall): string[] {
  const args = visibleJson(call.args ?? "");
  const what = `${call.tool ?? "?"} ${args.length > maxShownChars ? `${args.slice(0, maxShownChars)}...` : args}`;
  const who = call.operator === null ? (call.caller ?? "?") : `${call.caller ?? "?"}, signed by ${call.operator}`;
  return [
    ...[call.at, who, call.context ?? "", what, call.verdict, call.rule ?? ""].map(visibleJson),
    outcome(call),
    call.duration_ms === null ? "" : String(call.duration_ms),
  ];
}

function outcome({ outcome, exit_code: exit, signal, job_id: job }: OwnerCall): string {
  if (signal !== null) return `${outcome} ${signal}`;
  if (job !== null) return `job ${job}`;
  return outcome === "nonzero_exit" && exit !== null ? `exit ${exit}` : outcome;
}
