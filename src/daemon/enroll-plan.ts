/** What an enrollment would do to this machine, file by file, decided before anything is done. */
import { randomUUID } from "node:crypto";
import { realpath, stat } from "node:fs/promises";
import { fingerprint } from "../envelope/public-key.ts";
import { uuidBytes } from "../envelope/statement.ts";
import { AegisError } from "../errors.ts";
import { finishCommit } from "../identity/commit-files.ts";
import { aegisHome, type Environment, resolveFrom } from "../platform/paths.ts";
import { type Choices, type Connection, freshConfig, mergedConfig, requireValid } from "./enroll-config.ts";
import { type PlanEntry, planEntries, type Settled, type Settlement } from "./enroll-entries.ts";
import { EnrollError } from "./enroll-error.ts";
import { type Facts, gatherFacts } from "./enroll-facts.ts";
import { type PastedToken, readEnrollmentToken } from "./enroll-token.ts";
import { lockHolder } from "./lock.ts";

export interface EnrollInput {
  token: string;
  stateDir: string;
  configPath?: string;
  name?: string;
  hostname: string;
  labels: Readonly<Record<string, string>>;
  /** Folders that reading tools may see. */
  allow: readonly string[];
  fullAccess: boolean;
  minimal: boolean;
  /** What becomes of what is there already. `ask`: conflicts stay in the plan until `resolveConflicts`. */
  conflicts: "ask" | "refuse" | "force" | "keep";
  env: Environment;
  home: string;
}

export interface EnrollmentPlan {
  /** `https://HOST:PORT`. */
  endpoint: string;
  tenantId: string;
  hostName: string;
  nodeId: string;
  /** `new`: minted now · `kept`: as before · `bound`: the token names it. */
  nodeIdIs: "new" | "kept" | "bound";
  pins: readonly string[];
  /** `SHA256:...`; null when the token names no root. */
  rootFingerprint: string | null;
  seal: "strict" | "compat";
  stateDir: string;
  configPath: string;
  entries: readonly PlanEntry[];
  /** What the owner should know before saying yes. */
  notes: readonly string[];
  /** Everything is there already and fits the token: nothing has to be done while the node token is valid. */
  complete: boolean;
  /** For `enroll` only. */
  readonly work: PlanWork;
}

export interface PlanWork {
  token: PastedToken;
  facts: Facts;
  input: EnrollInput;
  choices: Choices;
  settled: Settled;
  keepsKey: boolean;
  merges: boolean;
  /** What to write as settings, once the connection's TLS is known; null = the file stays as it is. */
  settings(connection: Pick<Connection, "pins" | "caPem">): string | null;
}

/** Reads, and changes nothing, unless a crash left an enrollment half in its place: that one is ended first. */
export async function planEnrollment(input: EnrollInput): Promise<EnrollmentPlan> {
  const token = readEnrollmentToken(input.token);
  try {
    await finishCommit(input.stateDir);
    const facts = await gatherFacts(input.stateDir, input.configPath, input.home);
    const { labels, fullAccess, minimal } = input;
    const choices = { labels, fullAccess, minimal, folders: await folders(input) };
    const running = await lockHolder(input.stateDir);
    const all = { force: "overwrite", keep: "keep" } as const;
    const settlement = input.conflicts === "force" || input.conflicts === "keep" ? all[input.conflicts] : null;
    const plan = build(token, facts, input, choices, settlement ? { key: settlement, settings: settlement } : {});
    if (!running) return plan;
    const note = `a daemon (process ${running.pid}) runs here as the host that this was: restart it afterwards`;
    return { ...plan, notes: [...plan.notes, note] };
  } catch (error) {
    throw error instanceof EnrollError ? error : new EnrollError("plan", AegisError.from(error));
  }
}

export type Ask = (conflict: PlanEntry, plan: EnrollmentPlan) => Promise<Settlement | "abort">;

/** Asks about each conflict in turn. Throws `cancelled` on `abort`. */
export async function resolveConflicts(plan: EnrollmentPlan, ask: Ask): Promise<EnrollmentPlan> {
  let current = plan;
  for (;;) {
    const conflict = current.entries.find(({ action }) => action === "conflict");
    if (!conflict) return current;
    const answer = await ask(conflict, current);
    if (answer === "abort") throw new AegisError("cancelled", "nothing was changed");
    const { token, facts, input, choices, settled } = current.work;
    const what = conflict.what === "key" ? "key" : "settings";
    current = build(token, facts, input, choices, { ...settled, [what]: answer });
  }
}

/** Refuses a plan that still has a conflict in it. */
export function requireSettled({ entries, work }: EnrollmentPlan): void {
  const conflicts = entries.filter(({ action }) => action === "conflict");
  if (conflicts.length === 0) return;
  const lines = conflicts.map(({ path, why }) => `${path}: ${why}`);
  throw new AegisError("bootstrap_conflict", `this host has an identity already:\n  ${lines.join("\n  ")}`, {
    hint:
      work.facts.key.kind === "present" && work.facts.config.kind === "present"
        ? "--keep-existing keeps the key and the settings; --force replaces both (old ones go to archive/ and aegis-config.yaml.bak)"
        : "--force replaces what is there (old files go to archive/ and aegis-config.yaml.bak)",
  });
}

function build(
  token: PastedToken,
  facts: Facts,
  input: EnrollInput,
  choices: Choices,
  settled: Settled,
): EnrollmentPlan {
  const { claims } = token;
  const present = facts.config.kind === "present" ? facts.config.value.present : null;
  const differs = present ? otherController(token, facts) : null;
  const { key, settings } = settled;
  const notes: string[] = [];

  if (key === "keep") requireKeepable("key", facts.keyPath, facts.key, differs);
  if (settings === "keep") requireKeepable("settings", facts.configPath, facts.config, differs);
  const keepsKey = facts.key.kind === "present" && key === "keep";
  const merges = facts.config.kind === "present" && settings !== "overwrite";
  const identity = identify(token, facts, { keepsKey, replaces: key === "overwrite" }, notes);
  const hostName = input.name ?? ((merges && present?.name) || claims.sub || input.hostname);
  const seal = sealOf(claims);
  if (seal === "compat")
    notes.push("sessions will not be strict: what passes is believed to be the controller's as far as TLS proves it");
  if (!claims.pin)
    notes.push("the token pins no key: the system's authorities decide whether the server is the controller");

  const connection = {
    name: hostName,
    nodeId: identity.nodeId,
    endpoint: `${token.scheme}://${token.host.includes(":") ? `[${token.host}]` : token.host}:${token.port}`,
    tenantId: claims.tid,
    seal,
    sealRoot: seal === "strict" ? (claims.crk ?? null) : null,
  } as const;
  const written = facts.config.kind === "present" ? facts.config.value.text : "";
  const render = (trust: Pick<Connection, "pins" | "caPem">) => {
    const all = { ...connection, ...trust };
    return merges ? mergedConfig(facts.configPath, written, all, choices) : freshConfig(all, choices);
  };
  const entries = planEntries(facts, seal, settled, differs);
  const settledAll = entries.every(({ action }) => action !== "conflict");
  // A file that would not be valid must be known before a token is spent.
  if (settledAll) requireValid(facts.configPath, render({ pins: claims.pin ?? [], caPem: null }) ?? written);
  const chosen = input.name !== undefined || choices.fullAccess || choices.folders.length > 0;
  const complete =
    keepsKey &&
    merges &&
    facts.token &&
    (facts.controllerKeys || seal === "compat") &&
    !chosen &&
    Object.keys(choices.labels).length === 0;
  return {
    ...identity,
    endpoint: connection.endpoint,
    tenantId: claims.tid,
    hostName,
    pins: claims.pin ?? [],
    rootFingerprint: claims.crk ? fingerprintOf(claims.crk) : null,
    seal,
    stateDir: input.stateDir,
    configPath: facts.configPath,
    entries,
    notes,
    complete,
    work: { token, facts, input, choices, settled, keepsKey, merges, settings: render },
  };
}

/** An issuer that names no root can prove nothing, so its sessions cannot be strict. */
const sealOf = ({ crk, seal = "strict" }: PastedToken["claims"]): "strict" | "compat" =>
  crk === undefined ? "compat" : seal;

/** The key id as people compare it. */
const fingerprintOf = (crk: string): string => fingerprint({ keyId: Buffer.from(crk, "base64url") });

/** In words, how the settings here belong to another controller than the token; null when they do not. */
function otherController({ claims, host, port, scheme }: PastedToken, { config }: Facts): string | null {
  if (config.kind !== "present") return null;
  const { endpoint, tenantId, sealRoot, nodeId, seal } = config.value.present;
  const wanted = `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}`;
  if (tenantId !== null && tenantId !== claims.tid)
    return `it belongs to tenant ${tenantId}, the token to ${claims.tid}`;
  if (sealRoot !== null && claims.crk !== undefined && sealRoot !== claims.crk)
    return `it trusts another root key (${fingerprintOf(sealRoot)})`;
  if (seal === "strict" && sealOf(claims) === "compat")
    return "its sessions are strict, and the token is for sessions that are not";
  if (nodeId !== null && claims.nid !== undefined && nodeId !== claims.nid)
    return `it is host ${nodeId}, and the token is bound to ${claims.nid}`;
  if (endpoint !== null && sealRoot === null && normal(endpoint) !== wanted)
    return `it connects to ${endpoint}, the token to ${wanted}`;
  return null;
}

function normal(endpoint: string): string {
  const url = URL.parse(/^[a-z]+:\/\//i.test(endpoint) ? endpoint : `https://${endpoint}`);
  const port = url?.port || (url?.protocol === "http:" ? "80" : "443");
  return url ? `${url.protocol}//${url.hostname}:${port}` : endpoint;
}

function requireKeepable(
  what: "key" | "settings",
  path: string,
  found: Facts["key"] | Facts["config"],
  differs: string | null,
): void {
  const why = found.kind === "damaged" ? `it is damaged (${found.why})` : found.kind === "present" ? differs : null;
  if (why === null) return;
  throw new AegisError("bootstrap_conflict", `${path} cannot be kept: ${why}`, {
    hint:
      found.kind === "damaged"
        ? `mend it, or replace the ${what}: aegis edge enroll --force TOKEN`
        : "enroll this host anew with --force, or give the new identity a place of its own with --state-dir",
  });
}

/** Which host this will be. A plain token with a new key never takes a known id: that host would lose it. */
function identify(
  { claims }: PastedToken,
  { config }: Facts,
  { keepsKey, replaces }: { keepsKey: boolean; replaces: boolean },
  notes: string[],
): Pick<EnrollmentPlan, "nodeId" | "nodeIdIs"> {
  const before = config.kind === "present" ? config.value.present.nodeId : null;
  const usable = before !== null && uuidBytes(before) !== null;
  if (claims.nid !== undefined) return { nodeId: claims.nid, nodeIdIs: "bound" };
  if (usable && (keepsKey || !replaces)) return { nodeId: before, nodeIdIs: "kept" };
  if (usable)
    notes.push(
      `this becomes a new host with a node id of its own, because the token is not bound to ${before}; that one stays known as disconnected until it is revoked: aegis edge keys revoke-remote ${before}`,
    );
  return { nodeId: randomUUID(), nodeIdIs: "new" };
}

/** Absolute, existing, without symbolic links: what a policy can be about. */
async function folders({ allow, env, home }: EnrollInput): Promise<string[]> {
  const own = await realpath(aegisHome(env, home)).catch(() => aegisHome(env, home));
  const found: string[] = [];
  for (const text of allow) {
    const path = resolveFrom(process.cwd(), text, home);
    const real = await realpath(path).catch((cause: Error) => {
      throw new AegisError("usage", `--allow ${text}: ${path} does not exist`, { cause });
    });
    if (!(await stat(real)).isDirectory()) throw new AegisError("usage", `--allow ${text}: ${real} is not a folder`);
    if (`${real}/`.startsWith(`${own}/`))
      throw new AegisError("usage", `--allow ${text}: ${real} holds this host's identity, which no tool may see`);
    if (!found.includes(real)) found.push(real);
  }
  return found;
}
