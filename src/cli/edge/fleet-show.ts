/** `edge fleet show`: one run, and how each host fared. */
import { formatTarget } from "../../api/target-text.ts";
import { command } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, printResult } from "../options.ts";
import { inWords, summaryWords } from "../run-report.ts";
import { facts, table } from "../terminal.ts";

export default command({
  example: "aegis edge fleet show 0b9f3c1e-7d0f-4f0e-9d0a-6d1c2a3b4c5d",
  details: "With -o json also the last of what each host printed, and the receipts.",
  args: {
    run: { type: "positional", valueHint: "RUN", description: "the run's id, as fleet run and fleet runs print it" },
    output: outputFlag,
  },
  async run(given) {
    const run = await (await connect(given)).run(given.args.run);
    await printResult(given, given.args.output, run, () => {
      const head = facts([
        ["run", run.run_id],
        ["tool", run.tool],
        ["context", run.context],
        ["target", formatTarget(run.target)],
        ["by", run.principal],
        ["started", run.started_at],
        ["ended", run.ended_at ?? ""],
        ["outcome", run.outcome ?? "going on"],
        ["hosts", run.summary ? summaryWords(run.summary) : ""],
      ]);
      const rows = run.per_node.map((result) => [
        ...[result.name, result.outcome, `${result.duration_ms} ms`, result.receipt],
        inWords(result),
      ]);
      return `${head}\n${table(["HOST", "OUTCOME", "TOOK", "RECEIPT", "SAID"], rows)}`;
    });
    return undefined;
  },
});
