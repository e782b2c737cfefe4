/** `edge fleet update`: aegis on one host after the other, each proved before the next begins. */
import type { ApiClient } from "../../api/client.ts";
import { parseTarget } from "../../api/target-text.ts";
import { AegisError } from "../../errors.ts";
import { systemClock } from "../../platform/clock.ts";
import { command, type Surroundings } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, printResult } from "../options.ts";
import { table } from "../terminal.ts";

/** A download, two minutes of proof, and the way back. */
const patienceMs = 10 * 60_000;
const lookEveryMs = 1_000;

export default command({
  example: "aegis edge fleet update --target tags=canary --yes",
  details: `Asks each host to update itself to the latest signed release, waits until it is connected again with it, and goes on to
the next. The first that fails ends it, with exit 6. Hosts need the service and a context that allows aegis.update.`,
  args: {
    target: { type: "string", valueHint: "EXPR", required: true, description: "@NODE, group:NAME, all, or a selector" },
    context: {
      type: "string",
      valueHint: "NAME",
      default: "operator",
      description: "the security context on the hosts",
    },
    yes: { type: "boolean", alias: "y", description: "do not ask first; needed where nobody can be asked" },
    output: outputFlag,
  },
  async run(given) {
    const { args, terminal, stop } = given;
    const client = await connect(given);
    const { resolved, skipped } = await client.preview(parseTarget(args.target));
    for (const { name, reason } of skipped) terminal.note(`${name} is skipped: ${reason}`);
    if (resolved.length === 0)
      throw new AegisError("edge_unavailable", "no host could be asked", { hint: "aegis edge ls" });
    if (!args.yes && !(await terminal.confirm(`update aegis on ${resolved.map(({ name }) => name).join(", ")}?`, stop)))
      throw new AegisError("usage", "nothing was updated", { hint: "add --yes if it is meant" });
    const rows: Outcome[] = [];
    for (const { node_id, name } of resolved) {
      const outcome = await updateOne(client, node_id, name, args.context, given);
      rows.push(outcome);
      terminal.note(`${name}: ${outcome.ok ? `${outcome.from} -> ${outcome.to}` : outcome.message}`);
      if (!outcome.ok) break;
    }
    await printResult(given, args.output, rows, () =>
      table(
        ["HOST", "FROM", "TO", "OUTCOME"],
        rows.map(({ name, from, to, ok, message }) => [name, from, to, ok ? "ok" : message]),
      ),
    );
    return rows.every(({ ok }) => ok) ? 0 : 6;
  },
});

interface Outcome {
  name: string;
  from: string;
  to: string;
  ok: boolean;
  message: string;
}

async function updateOne(
  client: ApiClient,
  nodeId: string,
  name: string,
  context: string,
  { stop }: Surroundings,
): Promise<Outcome> {
  const asked = await ask(client, nodeId, context, {}, stop);
  if (asked.error !== null) return { name, from: "", to: "", ok: false, message: asked.error };
  const from = String(asked.value.current ?? "");
  const limit = systemClock.monotonic() + patienceMs;
  while (systemClock.monotonic() < limit && !stop.aborted) {
    await systemClock.sleep(lookEveryMs, stop);
    // While it restarts there is nobody to ask.
    const { value } = await ask(client, nodeId, context, { status: true }, stop);
    const last = value.last as { id?: string; ok?: boolean; version?: string; message?: string } | null | undefined;
    if (last?.id === asked.value.requested)
      return { name, from, to: last?.version ?? "", ok: last?.ok === true, message: last?.message ?? "" };
  }
  return {
    name,
    from,
    to: "",
    ok: false,
    message: stop.aborted
      ? "cancelled; the host goes on by itself"
      : `it did not report within ${patienceMs / 60_000} minutes`,
  };
}

async function ask(
  client: ApiClient,
  nodeId: string,
  context: string,
  args: Record<string, unknown>,
  signal: AbortSignal,
): Promise<{ value: Record<string, unknown>; error: string | null }> {
  let error: string | null = "the host is not connected";
  for await (const { event, data } of client.invoke(
    { target: { Node: nodeId }, tool: "aegis.update", args, context },
    { signal },
  )) {
    if (event !== "command_result") continue;
    if (data.ok && data.structured && typeof data.structured === "object")
      return { value: data.structured as Record<string, unknown>, error: null };
    error = data.error_message ?? `aegis.update ended with ${data.outcome}`;
  }
  return { value: {}, error };
}
