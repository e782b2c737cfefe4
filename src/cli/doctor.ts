/** `doctor`: looks at everything that must be so for this host and this operator, and says what to do where it is not. */
import { listProfiles } from "../identity/profiles.ts";
import { statePaths } from "../identity/state-dir.ts";
import { readTextFile } from "../platform/text-file.ts";
import { command, type Surroundings } from "./command.ts";
import { connect } from "./connection.ts";
import { examined, type Finding, ok, skipped } from "./doctor-findings.ts";
import { configFile, configFlag, edgeDir, outputFlag, printResult, stateDirFlag } from "./options.ts";
import { table } from "./terminal.ts";

export default command({
  example: "aegis doctor",
  details:
    "Changes nothing but the modes of files that were too open. Ends with 0 when nothing failed, with 1 otherwise.",
  args: { "state-dir": stateDirFlag, config: configFlag, output: outputFlag },
  async run(given) {
    const { args, terminal, stop } = given;
    const findings: Finding[] = [];
    for await (const finding of examine(given, args)) {
      findings.push(finding);
      if (stop.aborted) break;
    }
    await printResult(given, args.output, findings, () =>
      table(
        ["CHECK", "STATE", "FOUND"],
        findings.map(({ check, state, detail }) => [check, state, detail]),
      ),
    );
    for (const { check, remedy } of findings) if (remedy) terminal.note(`${check}: ${remedy}`);
    return findings.some(({ state }) => state === "failed") ? 1 : 0;
  },
});

async function* examine(
  around: Surroundings,
  args: { "state-dir": string | undefined; config: string | undefined },
): AsyncGenerator<Finding> {
  const place = { stateDir: edgeDir(args["state-dir"], around), ...configFile(args.config, around) };
  const settings = place.configPath ?? statePaths(place.stateDir).config;
  const isHost = (await readTextFile(settings).catch(() => "")) !== null;
  if (isHost) {
    const { examineHost } = await import("./doctor-host.ts");
    yield* examineHost(place, around);
  } else yield skipped("host", `this machine is none: ${settings} does not exist`);
  yield await examineOperator(around);
}

async function examineOperator(around: Surroundings): Promise<Finding> {
  const { env } = around;
  const { finding } = await examined("operator", async () => {
    const { profiles } = await listProfiles(around);
    if (profiles.length === 0 && !env.AEGIS_CONTROLLER && !env.AEGIS_USER_TOKEN)
      return { value: null, finding: skipped("operator", "nobody has signed in here") };
    const { principal, tenant_id, expires_at } = await (await connect(around)).whoami();
    const until = expires_at === null ? "" : `, until ${expires_at}`;
    return { value: true, finding: ok("operator", `signed in as ${principal} of tenant ${tenant_id}${until}`) };
  });
  return finding;
}
