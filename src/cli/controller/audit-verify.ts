/** `controller audit verify`: whether the record of what happened is whole, by itself and against the database beside it. */
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { loadControllerConfig } from "../../config/controller.ts";
import { type AuditReport, verifyAudit, verifyDataDir } from "../../controller/audit-verify.ts";
import { AegisError } from "../../errors.ts";
import { resolveFrom } from "../../platform/paths.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag, printResult } from "../options.ts";
import { facts } from "../terminal.ts";

export default command({
  example: "aegis controller audit verify audit.jsonl",
  details: `Without FILE the data directory is checked: the chain, its seals, every host's receipts, and what the database says beside
them. Compare the root key with the one that enroll and controller init show. Ends with 0 only if nothing is wrong.`,
  args: {
    file: {
      type: "positional",
      valueHint: "FILE",
      required: false,
      description: "made by audit export; - is stdin (default: the record in the data directory)",
    },
    "data-dir": dataDirFlag,
    output: outputFlag,
  },
  async run(given) {
    const { args, home, terminal } = given;
    if (args.file !== undefined && args["data-dir"] !== undefined)
      throw new AegisError("usage", "FILE and --data-dir name two records: give one of them");
    const report =
      args.file === undefined
        ? await ofDataDir(controllerDir(args["data-dir"], given))
        : await verifyAudit(linesOf(args.file === "-" ? null : resolveFrom(process.cwd(), args.file, home)));
    await printResult(given, args.output, record(report), () => inFacts(report));
    for (const { row, message } of report.problems) terminal.warn(`row ${row}: ${message}`);
    if (report.moreProblems > 0) terminal.warn(`and ${report.moreProblems} more`);
    return report.problems.length === 0 ? 0 : 1;
  },
});

async function ofDataDir(dataDir: string): Promise<AuditReport> {
  const { controllerId } = await loadControllerConfig(dataDir);
  return await verifyDataDir({ dataDir, controllerId });
}

/** Null is stdin. */
async function* linesOf(path: string | null): AsyncGenerator<string> {
  const input = path === null ? process.stdin : createReadStream(path);
  try {
    yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  } catch (cause) {
    throw new AegisError("usage", `cannot read ${path ?? "stdin"}: ${(cause as Error).message}`, {
      cause,
      hint: "give a file made by: aegis controller audit export",
    });
  }
}

const record = (report: AuditReport) => ({
  whole: report.problems.length === 0,
  controller_id: report.controllerId,
  root_fingerprint: report.rootFingerprint,
  rows: report.rows,
  sealed_rows: report.sealedRows,
  seals: report.seals,
  receipts: report.receipts,
  unanswered: report.unanswered,
  problems: report.problems,
  more_problems: report.moreProblems,
});

function inFacts({
  rootFingerprint,
  rows,
  sealedRows,
  seals,
  receipts,
  unanswered,
  problems,
  moreProblems,
}: AuditReport) {
  const count = problems.length + moreProblems;
  const { verified, ...others } = receipts;
  const rest = Object.entries(others).flatMap(([kind, count]) => (count > 0 ? [`${count} ${kind}`] : []));
  return facts([
    ["record", problems.length === 0 ? "whole" : `${count} problem${count === 1 ? "" : "s"}`],
    ["root key", rootFingerprint],
    ["rows", `${rows}, ${sealedRows} of them sealed by ${seals} seal${seals === 1 ? "" : "s"}`],
    ["receipts", [`${verified} verified`, ...rest].join(", ")],
    ["unanswered", String(unanswered)],
  ]);
}
