/** `edge enroll`: shows what it would do, asks what is open, and makes this machine a host. */
import { hostname } from "node:os";
import { type Enrolled, enroll } from "../../daemon/enroll.ts";
import {
  type Ask,
  type EnrollInput,
  type EnrollmentPlan,
  planEnrollment,
  resolveConflicts,
} from "../../daemon/enroll-plan.ts";
import { AegisError } from "../../errors.ts";
import { systemClock } from "../../platform/clock.ts";
import { silentLog } from "../../platform/log.ts";
import { systemProgram } from "../../platform/system-program.ts";
import { ensureSystemUser, giveTo, systemHome } from "../../service/system-user.ts";
import { command, many, type Surroundings } from "../command.ts";
import { configFile, configFlag, edgeDir, outputFlag, pairs, printResult, stateDirFlag } from "../options.ts";
import { readToken } from "../secret-input.ts";
import { facts, table } from "../terminal.ts";
import { installAfterEnrollment } from "./service-install.ts";
import { serviceStateDir } from "./service-spec.ts";

export default command({
  example: "aegis edge enroll --token-file enrollment.jwt",
  details: `Prints its plan first: which controller, which fingerprints, which files. On a terminal it asks about what is there
already and which folders tools may see; elsewhere, and with --non-interactive, it refuses conflicts with exit 4.`,
  args: {
    token: {
      type: "positional",
      valueHint: "TOKEN",
      required: false,
      description: "from edge token issue; - reads it from stdin",
    },
    "token-file": { type: "string", valueHint: "FILE", description: "read the token from a file; - is stdin" },
    config: configFlag,
    "state-dir": stateDirFlag,
    name: {
      type: "string",
      valueHint: "NAME",
      description: "what this host is called (default: the token's, else its hostname)",
    },
    label: many("K=V", "what this host says of itself, for selecting it"),
    "non-interactive": { type: "boolean", description: "ask nothing" },
    force: { type: "boolean", description: "replace the key and the settings that are there" },
    "keep-existing": {
      type: "boolean",
      description: "keep the key and the settings that are there, where that is safe",
    },
    "dry-run": { type: "boolean", description: "print the plan and change nothing" },
    minimal: { type: "boolean", description: "write settings without comments and without defaults" },
    service: {
      type: "boolean",
      default: true,
      negativeDescription: "install no service; print the command that runs the daemon",
    },
    allow: many("PATH", "a folder that reading tools may see"),
    "allow-unsandboxed": {
      type: "boolean",
      description: "install the service also where there are no user namespaces",
    },
    "full-access": { type: "boolean", description: "add the context `operator`, under which everything is allowed" },
    output: outputFlag,
  },
  async run(given) {
    const { args, every, env, home, terminal, stop } = given;
    if (args.force && args["keep-existing"])
      throw new AegisError("usage", "--force and --keep-existing are opposites: give one of them");
    const place = configFile(args.config, given);
    if (args.service && (args["state-dir"] !== undefined || place.configPath !== undefined))
      throw new AegisError("usage", "a service has its state and its settings in the usual place", {
        hint: "add --no-service and keep aegis edge run going yourself, or set AEGIS_HOME instead of --state-dir and --config",
      });
    const system = args.service && process.getuid?.() === 0 && process.platform === "linux";
    const asks = terminal.interactive && !args["non-interactive"];
    const token = await readToken("TOKEN", args.token, args["token-file"], given);
    const input: EnrollInput = {
      token: token.reveal(),
      stateDir: system ? serviceStateDir(true, given) : edgeDir(args["state-dir"], given),
      ...place,
      ...(args.name === undefined ? {} : { name: args.name }),
      hostname: hostname(),
      labels: pairs("--label", every("label")),
      allow: every("allow"),
      fullAccess: args["full-access"],
      minimal: args.minimal,
      conflicts: args.force ? "force" : args["keep-existing"] ? "keep" : asks ? "ask" : "refuse",
      env,
      home: system ? systemHome : home,
    };
    let plan = await planEnrollment(input);
    let allow = input.allow;
    if (args["dry-run"]) {
      await printResult(given, args.output, planRecord(plan), () => planText(plan));
      return undefined;
    }
    if (asks) ({ plan, allow } = await agree(plan, input, given));
    else for (const line of planText(plan).trimEnd().split("\n")) terminal.note(line);
    stop.throwIfAborted();
    const owner = system ? await ensureSystemUser(systemProgram(systemClock)) : null;
    const enrolled = await enroll(plan, { clock: systemClock, log: silentLog });
    if (owner) await giveTo(owner, systemHome);
    await printResult(given, args.output, record(enrolled), () => facts(factsOf(enrolled)));
    if (!args.service) {
      terminal.note(`next: ${runCommand(args)}`);
      return undefined;
    }
    return await installAfterEnrollment(
      { system, allow, unsandboxed: args["allow-unsandboxed"], force: args.force },
      given,
    );
  },
});

interface Agreed {
  plan: EnrollmentPlan;
  /** Folders that tools may see, as they were typed. */
  allow: readonly string[];
}

/** Shows the plan, settles what is open with the person at the terminal, and asks for a yes. */
async function agree(first: EnrollmentPlan, input: EnrollInput, around: Surroundings): Promise<Agreed> {
  const { terminal, stop } = around;
  const answers = new Map<string, "keep" | "overwrite">();
  const ask: Ask = async ({ what, path, why }) => {
    const known = answers.get(what);
    if (known) return known;
    const answer = await terminal.question(`${path}: ${why}. Keep it, overwrite it, or stop? [k/o/S] `, stop);
    const letter = answer?.trim().toLowerCase().charAt(0);
    if (letter !== "k" && letter !== "o") return "abort";
    const settlement = letter === "k" ? "keep" : "overwrite";
    answers.set(what, settlement);
    return settlement;
  };
  let plan = await resolveConflicts(first, ask);
  const isFresh = plan.entries.some(
    ({ what, action }) => what === "settings" && (action === "create" || action === "overwrite"),
  );
  let { allow } = input;
  if (isFresh) ({ plan, allow } = await widened(plan, input, ask, around));
  for (const line of planText(plan).trimEnd().split("\n")) terminal.note(line);
  if (plan.complete || (await terminal.confirm("enroll this host?", stop))) return { plan, allow };
  throw new AegisError("cancelled", "nothing was changed");
}

/** What only the owner can know: which folders tools may read, and whether callers may do everything. */
async function widened(
  plan: EnrollmentPlan,
  input: EnrollInput,
  ask: Ask,
  { terminal, stop }: Surroundings,
): Promise<Agreed> {
  let { allow, fullAccess } = input;
  if (allow.length === 0) {
    const answer = await terminal.question(
      "Which folders may tools read? (paths, separated by commas; empty: none) ",
      stop,
    );
    allow = (answer ?? "").split(",").flatMap((path) => path.trim() || []);
  }
  if (!fullAccess)
    fullAccess = await terminal.confirm(
      "May callers whose token names the context `operator` run and change everything?",
      stop,
    );
  if (allow.length === input.allow.length && fullAccess === input.fullAccess) return { plan, allow };
  return { plan: await resolveConflicts(await planEnrollment({ ...input, allow, fullAccess }), ask), allow };
}

function planText(plan: EnrollmentPlan): string {
  const head = facts([
    ["controller", plan.endpoint],
    ["tenant", plan.tenantId],
    ["root key", plan.rootFingerprint ?? "none: its answers cannot be verified"],
    ["TLS keys", plan.pins.join(" ") || "none pinned"],
    ["sessions", plan.seal],
    ["host", `${plan.hostName} (${plan.nodeIdIs === "new" ? "a new node id" : plan.nodeId})`],
  ]);
  const files = table(
    ["WILL", "WHAT", "PATH", "BECAUSE"],
    plan.entries.map(({ action, what, path, why }) => [action, what, path, why]),
  );
  return `${head}\n${files}${plan.notes.map((note) => `note: ${note}\n`).join("")}`;
}

const planRecord = (plan: EnrollmentPlan) => ({
  endpoint: plan.endpoint,
  tenant_id: plan.tenantId,
  host_name: plan.hostName,
  node_id: plan.nodeIdIs === "new" ? null : plan.nodeId,
  root_fingerprint: plan.rootFingerprint,
  pins: plan.pins,
  seal: plan.seal,
  state_dir: plan.stateDir,
  config_path: plan.configPath,
  entries: plan.entries,
  notes: plan.notes,
  complete: plan.complete,
});

const record = (enrolled: Enrolled) => ({
  node_id: enrolled.nodeId,
  tenant_id: enrolled.tenantId,
  host_name: enrolled.hostName,
  state_dir: enrolled.stateDir,
  config_path: enrolled.configPath,
  token_expires_at: enrolled.tokenExpiresAt === null ? null : new Date(enrolled.tokenExpiresAt).toISOString(),
  unchanged: enrolled.unchanged,
});

function factsOf(enrolled: Enrolled): [string, string][] {
  const { node_id, tenant_id, host_name, config_path, token_expires_at, unchanged } = record(enrolled);
  return [
    ["host", host_name],
    ["node", node_id],
    ["tenant", tenant_id],
    ["settings", config_path],
    ["token until", token_expires_at ?? ""],
    ["changed", unchanged ? "nothing: this host was enrolled already" : "yes"],
  ];
}

function runCommand(args: { config: string | undefined; "state-dir": string | undefined }): string {
  const words = ["aegis edge run"];
  if (args["state-dir"] !== undefined) words.push("--state-dir", args["state-dir"]);
  if (args.config !== undefined) words.push("--config", args.config);
  return words.join(" ");
}
