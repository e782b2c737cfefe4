/** One request to a fleet, from the question whether it is meant to the exit status that says how it went. */
import type { ApiClient } from "../../api/client.ts";
import { formatTarget } from "../../api/target-text.ts";
import type { InvokeRequest } from "../../api/types.ts";
import { AegisError } from "../../errors.ts";
import { systemClock } from "../../platform/clock.ts";
import type { Surroundings } from "../command.ts";
import { connectForRun } from "../connection.ts";
import { signingOf } from "../operator-signing.ts";
import { outputFormat } from "../options.ts";
import { gridView } from "../run-grid.ts";
import { linesView } from "../run-lines.ts";
import { recordsView } from "../run-records.ts";
import { exitOf, followRun, hostsInWords, type RunView, tellDoubts } from "../run-report.ts";
import type { Terminal } from "../terminal.ts";

export const yesFlag = {
  type: "boolean",
  alias: "y",
  description: "do not ask first; needed where nobody can be asked",
} as const;

/** `isText`: some of the tool's arguments were given as text. */
export async function runOnFleet(
  request: InvokeRequest,
  given: Surroundings,
  args: { yes: boolean; output: string | undefined; isText?: boolean },
): Promise<number> {
  const { stop, terminal, env } = given;
  const format = outputFormat(args.output, env);
  const client = await connectForRun(given);
  const signing = await signingOf(client, request, given, args.yes);
  if (!args.yes && !signing) await askFirst(client, request, given);
  const view = format !== "table" ? recordsView(terminal, format) : viewFor(terminal);
  const report = await followRun(client, signing?.request ?? request, view, stop, signing?.run);
  tellDoubts(report, terminal);
  const misread = [...report.results.values()].some(({ error_kind }) => error_kind === "invalid_args");
  if (misread && args.isText)
    terminal.note(
      `hint: --arg gives text; lists, numbers and true go into --args, as in --args '{"args":["-c","id"]}'`,
    );
  const status = exitOf(report);
  if (report.outcome === "complete" && report.results.size === 0)
    terminal.fail(
      new AegisError("edge_unavailable", `no host of ${formatTarget(request.target)} could be asked`, {
        hint: "aegis edge ls",
      }),
    );
  return status;
}

const viewFor = (terminal: Terminal): RunView =>
  terminal.interactive ? gridView(terminal, systemClock) : linesView(terminal);

async function askFirst(client: ApiClient, request: InvokeRequest, { terminal, stop }: Surroundings): Promise<void> {
  if (!terminal.interactive)
    throw new AegisError("usage", "this would act on hosts, and nobody can be asked", {
      hint: "add --yes if it is meant",
    });
  const { resolved, skipped } = await client.preview(request.target);
  const names = resolved.slice(0, 10).map(({ name }) => name);
  if (resolved.length > names.length) names.push(`${resolved.length - names.length} more`);
  const left = skipped.length > 0 ? `; ${skipped.length} would be skipped` : "";
  terminal.note(
    `${request.tool} on ${formatTarget(request.target)}: ${hostsInWords(resolved.length)} (${names.join(", ")})${left}`,
  );
  if (!(await terminal.confirm("run it?", stop))) throw new AegisError("cancelled", "nothing was run");
}
