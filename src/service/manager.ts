/** Installs, removes and watches the service: files in one step, conflicts by the owner's word, and a start that is proved. */
import { lstat, mkdir, readdir, readFile, readlink, rm, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AegisError } from "../errors.ts";
import { makeDirectory, PUBLIC_FILE, writeFileAtomic } from "../platform/private-file.ts";
import {
  isEdited,
  isOurs,
  type ManagerOptions,
  type Owner,
  type ServiceFile,
  type ServiceManager,
  type ServiceSpec,
  type ServiceStatus,
} from "./spec.ts";

export interface InstallOptions extends ManagerOptions {
  manager: ServiceManager;
  /** Login name, for lingering. */
  user: string;
  /** What to do with a unit of somebody else's making. */
  conflicts: "refuse" | "force" | "keep";
  /** Resolves with null once the daemon is connected, or after the patience with why it is not. */
  connected(patienceMs: number): Promise<string | null>;
  say(text: string): void;
}

export interface Installed {
  /** Files that were written; empty when everything was as it should be. */
  written: string[];
  status: ServiceStatus;
  /** Why it is not connected; null when it is. */
  notConnected: string | null;
}

const connectPatienceMs = 15_000;
const logLines = 20;
const conflictHint = { hint: "--force replaces it, --keep-existing goes on with it" };

export async function install(spec: ServiceSpec, options: InstallOptions): Promise<Installed> {
  const { manager, conflicts, say } = options;
  const problem = await manager.obstacle(spec, options);
  if (problem) throw problem;
  const kept = await manager.kept(spec, options);
  if (kept === "foreign" && conflicts === "refuse")
    throw new AegisError(
      "bootstrap_conflict",
      `${manager.name} has a service of this name that is not ours`,
      conflictHint,
    );
  const asItIs = conflicts === "keep" && (kept === "other" || kept === "foreign");
  const wanted = manager.files(spec);
  const plan = await compare(wanted, conflicts);
  const logs = manager.logs(spec, { lines: 1, follow: false });
  if ("files" in logs) for (const path of logs.files) await makeDirectory(dirname(path));
  const stale = await ourOther(wanted);
  if (conflicts === "refuse") for (const path of stale) refuseForeign(path, await readFile(path, "utf8"));
  for (const file of plan) {
    await mkdir(dirname(file.path), { recursive: true, mode: 0o755 });
    await writeFileAtomic(file.path, file.text, PUBLIC_FILE);
  }
  for (const path of stale) await rm(path, { force: true });
  // An empty folder of drop-ins goes with the last of them.
  for (const folder of new Set(stale.map(dirname))) await rmdir(folder).catch(() => {});
  const nothingToDo = plan.length === 0 && stale.length === 0 && (kept === "same" || asItIs);
  try {
    const runs = nothingToDo && (await manager.status(spec, options)).state === "running";
    if (!runs) await (asItIs ? manager.restart(spec, options) : manager.activate(spec, options));
  } catch (error) {
    throw await withLog(spec, options, AegisError.from(error));
  }
  const wish = await manager.linger(spec, options.user, options);
  if (wish) say(wish);
  const notConnected = await options.connected(connectPatienceMs);
  const elsewhere = kept === "same" || asItIs ? [] : [`aegis-edge (${manager.name})`];
  const written = [...plan.map(({ path }) => path), ...stale, ...elsewhere];
  return { written, status: await manager.status(spec, options), notConnected };
}

/** Which of the wanted files differ from what lies there. Throws `bootstrap_conflict` on what somebody else wrote or changed. */
async function compare(wanted: readonly ServiceFile[], conflicts: InstallOptions["conflicts"]): Promise<ServiceFile[]> {
  const changed: ServiceFile[] = [];
  for (const file of wanted) {
    const found = await lstat(file.path).catch(() => null);
    if (found?.isSymbolicLink())
      throw new AegisError("bootstrap_conflict", `${file.path} is a symbolic link${await leadsToNull(file.path)}`, {
        hint: `rm ${file.path}, then try again`,
      });
    const text = found ? await readFile(file.path, "utf8") : null;
    if (text === file.text || (text !== null && conflicts === "keep")) continue;
    if (text !== null && conflicts === "refuse") refuseForeign(file.path, text);
    changed.push(file);
  }
  return changed;
}

/** Throws `bootstrap_conflict` on what somebody else wrote, or wrote into. */
function refuseForeign(path: string, text: string): void {
  const how = !isOurs(text) ? "was written by somebody else" : isEdited(text) ? "was changed by hand" : null;
  if (how !== null) throw new AegisError("bootstrap_conflict", `${path} is there already and ${how}`, conflictHint);
}

async function leadsToNull(path: string): Promise<string> {
  return (await readlink(path)) === "/dev/null" ? ", which masks the service" : "";
}

/** Drop-ins of ours that are no longer asked for. */
async function ourOther(wanted: readonly ServiceFile[]): Promise<string[]> {
  const keep = new Set(wanted.map(({ path }) => path));
  return (await ownFiles(wanted)).filter((path) => !keep.has(path));
}

/** The files that are wanted and the drop-ins of the first of them, as far as they hold our marker. */
async function ownFiles(wanted: readonly ServiceFile[]): Promise<string[]> {
  const [unit] = wanted;
  if (!unit) return [];
  const folder = `${unit.path}.d`;
  const names = await readdir(folder).catch(() => []);
  const candidates = [...new Set([...wanted.map(({ path }) => path), ...names.map((name) => join(folder, name))])];
  const ours = await Promise.all(candidates.map(async (one) => isOurs(await readFile(one, "utf8").catch(() => ""))));
  return candidates.filter((_, index) => ours[index]);
}

export interface Uninstalled {
  removed: string[];
  /** Files of others that stay. */
  left: string[];
}

/** Twice is the same as once. */
export async function uninstall(
  spec: ServiceSpec,
  options: ManagerOptions & Pick<InstallOptions, "manager">,
): Promise<Uninstalled> {
  const { manager } = options;
  const wanted = manager.files(spec);
  const path = wanted[0]?.path;
  const present =
    path === undefined
      ? (await manager.status(spec, options)).state !== "missing"
      : (await lstat(path).catch(() => null)) !== null;
  if (present) await manager.deactivate(spec, options);
  if (path === undefined) return { removed: present ? [`aegis-edge (${manager.name})`] : [], left: [] };
  const removed = await ownFiles(wanted);
  for (const one of removed) await rm(one, { force: true });
  const folder = `${path}.d`;
  const left = (await readdir(folder).catch(() => [])).map((name) => join(folder, name));
  if (left.length === 0) await rmdir(folder).catch(() => {});
  if (present && !removed.includes(path)) left.unshift(path);
  if (removed.length > 0) await manager.reload(spec, options);
  return { removed, left };
}

/** The error, what it usually means, and the daemon's last words. */
async function withLog(owner: Owner, options: InstallOptions, error: AegisError): Promise<AegisError> {
  const { detail } = await options.manager.status(owner, options);
  const known = diagnosis(detail);
  const text = (await lastWords(owner, options)).trim();
  const message = [error.message, ...(known ? [known] : []), ...(text ? [`its last words:\n${text}`] : [])].join("\n");
  return new AegisError(error.code, message, { cause: error, ...(error.hint ? { hint: error.hint } : {}) });
}

async function lastWords(owner: Owner, { manager, run }: InstallOptions): Promise<string> {
  const where = manager.logs(owner, { lines: logLines, follow: false });
  if ("command" in where) {
    const [command = "", ...args] = where.command;
    return (await run(command, args, { timeoutMs: 10_000 })).stdout;
  }
  const texts = await Promise.all(where.files.map((path) => readFile(path, "utf8").catch(() => "")));
  return texts.join("").split("\n").slice(-logLines).join("\n");
}

/** What systemd's own exit statuses mean here. */
function diagnosis(detail: string): string | null {
  if (detail.includes("status 217"))
    return "217: this system gives no user namespaces; --allow-unsandboxed goes on without";
  if (detail.includes("status 226"))
    return "226: a folder that the unit shows does not exist; was one given to --allow removed?";
  if (detail.includes("status 203")) return "203: the executable cannot be run from where it lies";
  if (detail.includes("status 78")) return "78: this host is not enrolled, or its settings are invalid";
  return null;
}
