/** `edge exec`: one command on a host, as if it ran here. */
import { constants } from "node:os";
import type { CommandResult } from "../../api/events.ts";
import { parseTarget } from "../../api/target-text.ts";
import type { InvokeRequest } from "../../api/types.ts";
import { AegisError } from "../../errors.ts";
import { exitStatusOf, type StoppedBySignal } from "../../platform/signals.ts";
import { command, many } from "../command.ts";
import { connectForRun } from "../connection.ts";
import { signingOf } from "../operator-signing.ts";
import { duration, pairs } from "../options.ts";
import { bareView } from "../run-bare.ts";
import { linesView } from "../run-lines.ts";
import { exitOf, followRun, inWords, noteOf, type RunReport, tellDoubts } from "../run-report.ts";
import { readBounded } from "../secret-input.ts";
import type { Terminal } from "../terminal.ts";
import { contextFlag } from "./fleet-flags.ts";

/** As ssh: what is ours and not the command's. */
const ourFailure = 255;

export default command({
  example: "aegis edge exec web-1 -- uptime",
  details: `On one host it ends with the command's own status, with 255 when we failed, with 128 + n when signal n ended the
command. On several hosts it shows each line with its host's name, and ends as fleet run does. There is no shell and no
terminal on the other side. Ctrl-C cancels there.`,
  rest: "CMD ARG...",
  args: {
    target: {
      type: "positional",
      valueHint: "TARGET",
      description: "a host's name, id or the first 6 characters of its id; or @NODE, group:NAME, all, 'os=linux'",
    },
    context: contextFlag,
    deadline: {
      type: "string",
      valueHint: "DURATION",
      default: "24h",
      description: "end it after this long; 24h at most",
    },
    cwd: { type: "string", valueHint: "DIR", description: "where it runs (default: the daemon's home)" },
    env: many("K=V", "a variable for it, if the host's policy allows its name"),
    stdin: { type: "boolean", description: "pass what is read here on to it, to the end, before it starts" },
    job: {
      type: "boolean",
      description: "do not wait for it: print its job id, for the tools job.wait, .output, .kill",
    },
  },
  async run(given) {
    const { args, every, rest, terminal, stop } = given;
    try {
      const [program, ...words] = rest;
      if (program === undefined)
        throw new AegisError("usage", "there is no command", { hint: `aegis edge exec ${args.target} -- uptime` });
      const env = pairs("--env", every("env"));
      const request: InvokeRequest = {
        target: parseTarget(args.target, { bareNode: true }),
        tool: "cmd.run",
        args: {
          command: program,
          args: words,
          ...(args.cwd === undefined ? {} : { cwd: args.cwd }),
          ...(Object.keys(env).length === 0 ? {} : { env }),
          ...(args.stdin ? { stdin: await readInput() } : {}),
          ...(args.job ? { wait_secs: 0 } : {}),
        },
        context: args.context,
        policy: { deadline_secs: duration("--deadline", args.deadline) / 1000 },
        abort_on_disconnect: true,
      };
      const single = typeof request.target === "object" && "Node" in request.target;
      const client = await connectForRun(given);
      const signing = await signingOf(client, request, given, false);
      const view = single ? bareView(terminal) : linesView(terminal);
      const report = await followRun(client, signing?.request ?? request, view, stop, signing?.run);
      tellDoubts(report, terminal);
      if (args.job) await tellJobs(report, single, terminal);
      return single ? endSingle(report, terminal, stop) : exitOf(report);
    } catch (thrown) {
      terminal.fail(AegisError.from(thrown));
      return ourFailure;
    }
  },
});

/** Arguments of a call are JSON: the input must be text, and travels whole. */
const maxInputBytes = 512 * 1024;

async function readInput(): Promise<string> {
  const bytes = await readBounded(process.stdin, "stdin", maxInputBytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new AegisError("usage", "stdin is not UTF-8 text", { cause, hint: "send bytes as a file: aegis edge cp" });
  }
}

/** One job id a line; of several hosts with the host's name before it. What has ended already has none. */
async function tellJobs({ results, names }: RunReport, single: boolean, terminal: Terminal): Promise<void> {
  for (const [nodeId, { job_id: jobId }] of results)
    if (jobId !== null) await terminal.data(single ? `${jobId}\n` : `${names.get(nodeId) ?? nodeId} ${jobId}\n`);
}

function endSingle(report: RunReport, terminal: Terminal, stop: AbortSignal): number {
  const [result] = report.results.values();
  if (report.outcome === "cancelled" && stop.aborted) {
    const { signal } = stop.reason as StoppedBySignal;
    return exitStatusOf(signal);
  }
  if (!result) {
    const [absent] = report.skipped;
    const why = report.refusal?.message ?? (absent ? `${absent.name} is ${absent.reason}` : report.outcome);
    terminal.fail(new AegisError("edge_unavailable", why, { hint: "aegis edge ls" }));
    return ourFailure;
  }
  const status = endOf(result, terminal);
  return report.doubts.size > 0 ? ourFailure : status;
}

function endOf(result: CommandResult, terminal: Terminal): number {
  if (result.output === "incomplete") terminal.warn("not all of its output arrived");
  if (result.ok) return 0;
  if (result.error_kind === "nonzero_exit" && result.exit_code !== null) {
    const note = noteOf(result);
    if (note !== null) terminal.note(note);
    return result.exit_code;
  }
  const number = constants.signals[result.signal as NodeJS.Signals];
  if (result.error_kind === "signal" && number !== undefined) return 128 + number;
  terminal.fail(new AegisError("internal", inWords(result)));
  return ourFailure;
}
