/** Finds the native parts that the build put into this executable, and places them where the system can load them. */
import { createHash } from "node:crypto";
import { lstat, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { makeDirectory, PRIVATE_DIR, writeFileAtomic } from "../platform/private-file.ts";
import { target } from "../version.ts";

export type NativeName = "aegis-launch" | "aegis-notify" | "aegis-rules" | "aegis-trim";

/** Name -> SHA-256 of what was embedded, as JSON; install/build.ts defines both at compile time. */
declare const AEGIS_NATIVE: string | undefined;
declare const AEGIS_NATIVE_MISSING: string | undefined;

export type Placed = { kind: "placed"; path: string } | { kind: "absent"; why: string };

/**
 * Puts a part into `dir`, which is made private and must lie where programs may be run from, under a name that holds its
 * sum. What lies there is used only if it is ours and unchanged; parts of other versions are removed.
 */
export async function placeNative(name: NativeName, dir: string): Promise<Placed> {
  const part = await embedded(name);
  if (part.kind === "absent") return part;
  const { bytes, sum } = part;
  const file = `${name}-${sum.slice(0, 16)}`;
  const path = join(dir, file);
  const there = await lstat(dir).catch(() => null);
  if (there && (!there.isDirectory() || there.uid !== process.getuid?.()))
    throw new AegisError("internal", `${dir} is not a directory of this user`, { hint: `ls -ld ${dir}` });
  await makeDirectory(dir, PRIVATE_DIR);
  if (!(await isIntact(path, sum))) {
    await rm(path, { recursive: true, force: true });
    await writeFileAtomic(path, bytes, PRIVATE_DIR);
    if (!(await isIntact(path, sum)))
      throw new AegisError("internal", `${path} is not what was written there`, { hint: `ls -l ${dir}` });
  }
  for (const other of await readdir(dir))
    if (other.startsWith(`${name}-`) && other !== file && !other.endsWith(".tmp"))
      await rm(join(dir, other), { force: true });
  return { kind: "placed", path };
}

/** Loads an addon, from a copy in the first of `dirs` that allows it. */
export async function loadAddon(name: NativeName, dirs: readonly string[]): Promise<Record<string, unknown> | string> {
  const refusals: string[] = [];
  for (const dir of dirs) {
    try {
      const placed = await placeNative(name, dir);
      if (placed.kind === "absent") return placed.why;
      const module = { exports: {} as Record<string, unknown> };
      process.dlopen(module, placed.path);
      return module.exports;
    } catch (error) {
      refusals.push(`${dir}: ${(error as Error).message}`);
    }
  }
  return `${name} could not be loaded (${refusals.join("; ")})`;
}

export const isEmbedded = async (name: NativeName): Promise<boolean> => (await embedded(name)).kind === "embedded";

/** Where parts go when the state directory does not allow programs: a folder of this user's own. */
export const spareDir = (env: Readonly<Record<string, string | undefined>>): string =>
  join(env.BUN_TMPDIR || tmpdir(), `aegis-native-${process.getuid?.() ?? 0}`);

type Embedded = { kind: "embedded"; bytes: Uint8Array; sum: string } | { kind: "absent"; why: string };

async function embedded(name: NativeName): Promise<Embedded> {
  const compiled = typeof AEGIS_NATIVE === "string";
  const folder = join(import.meta.dir, "../../dist/native", target);
  const sums = compiled ? AEGIS_NATIVE : await readFile(join(folder, "sums.json"), "utf8").catch(() => "{}");
  const sum = (JSON.parse(sums) as Record<string, string>)[name];
  if (sum === undefined) return { kind: "absent", why: whyAbsent(compiled) };
  const blob = compiled
    ? Bun.embeddedFiles.find((file) => (file as Blob & { name?: string }).name === name)
    : Bun.file(join(folder, name));
  const bytes = blob && new Uint8Array(await blob.arrayBuffer());
  if (!bytes || sha256(bytes) !== sum)
    throw new AegisError("internal", `the ${name} inside ${process.execPath} is damaged`, {
      hint: "install aegis again",
    });
  return { kind: "embedded", bytes, sum };
}

function whyAbsent(compiled: boolean): string {
  if (process.platform !== "linux") return `there are no native parts for ${process.platform}`;
  if (compiled && typeof AEGIS_NATIVE_MISSING === "string" && AEGIS_NATIVE_MISSING !== "") return AEGIS_NATIVE_MISSING;
  return compiled ? `there are no native parts for ${target}` : "the native parts are not built: npm run build";
}

async function isIntact(path: string, sum: string): Promise<boolean> {
  const stat = await lstat(path).catch(() => null);
  if (!stat?.isFile() || stat.uid !== process.getuid?.() || (stat.mode & 0o777) !== PRIVATE_DIR) return false;
  return sha256(await readFile(path)) === sum;
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
