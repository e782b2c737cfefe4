/** `edge fleet runs`: what was run, the newest first. */
import type { RunRecord } from "../../api/runs.ts";
import { formatTarget } from "../../api/target-text.ts";
import { command } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, printResult } from "../options.ts";
import { summaryWords } from "../run-report.ts";
import { table } from "../terminal.ts";

export default command({
  example: "aegis edge fleet runs",
  details: "The newest 50. Each is told in full by: aegis edge fleet show RUN",
  args: { output: outputFlag },
  async run(given) {
    const { items } = await (await connect(given)).runs();
    await printResult(given, given.args.output, items, () =>
      table(["RUN", "STARTED", "TOOL", "TARGET", "BY", "OUTCOME", "HOSTS"], items.map(row)),
    );
    return undefined;
  },
});

const row = (run: RunRecord): string[] => [
  ...[run.run_id, run.started_at, run.tool, formatTarget(run.target), run.principal],
  ...[run.outcome ?? "going on", run.summary ? summaryWords(run.summary) : ""],
];
