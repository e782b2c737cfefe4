/**
 * Builds the executable of this machine into dist/, unless the one that lies there is current.
 * `bun install/build.ts [--force]`. Everything about the recipe stands in `compile`.
 */
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildNative, nativeCompiler } from "./native.ts";
import { releaseKey } from "./release-key.ts";

const root = join(import.meta.dir, "..");
const dist = join(root, "dist");

/** Our name of a target -> Bun's. A target stands here once its executable has been run by a test. */
const targets: Record<string, `bun-${string}`> = {
  "linux-x64": "bun-linux-x64",
};

/** The flags that keep an executable from loading `./.env` and running `./bunfig.toml` of whoever starts it. */
export const hardening: readonly string[] = ["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"];

export interface Compilation {
  entry: string;
  /** Its last part is embedded, so equal builds need equal names. */
  outfile: string;
  bunTarget: string;
  /** Text constants by name. */
  define: Readonly<Record<string, string>>;
  hardening: readonly string[];
  /** Path of the Bun that goes in; the one that runs this unless a release says otherwise, so nothing is fetched. */
  runtime?: string;
  /** Our name of the target, whose native parts go in; none when absent. */
  target?: string;
}

/** One run of the bundler. Every file named after the entry is embedded under its own name. */
export function compile(what: Compilation): void {
  const native = what.target === undefined ? null : buildNative(what.target);
  const flags = ["--compile", "--minify", "--sourcemap=none", "--splitting", "--bytecode", "--format=esm"];
  if (native?.missing)
    process.stderr.write(`${what.target}: ${native.missing}; tools will be able to read the identity of its daemon\n`);
  const constants = {
    // A library that asks for its folder would otherwise be given that of this build, and no two folders build alike.
    ...{ __dirname: "/$bunfs/root", __filename: "/$bunfs/root/aegis" },
    // Always there: only a run from source may look for parts in dist/.
    ...{ AEGIS_NATIVE: JSON.stringify(native?.sums ?? {}), AEGIS_NATIVE_MISSING: native?.missing ?? "" },
    ...what.define,
  };
  const define = Object.entries(constants).flatMap(([name, text]) => ["--define", `${name}=${JSON.stringify(text)}`]);
  const command = [process.execPath, "build", ...flags, ...what.hardening, `--target=${what.bunTarget}`];
  command.push(
    `--compile-executable-path=${what.runtime ?? process.execPath}`,
    ...define,
    "--asset-naming=[name]",
    what.entry,
    ...Object.values(native?.files ?? {}),
    "--outfile",
    what.outfile,
  );
  const run = Bun.spawnSync(command, { cwd: root, stdout: "pipe", stderr: "pipe" });
  if (run.exitCode !== 0) throw new Error(`bun build failed:\n${run.stderr}${run.stdout}`);
}

/** Short commit id, with `+` when sources differ from it; "unknown" outside a git checkout. */
export function commitId(): string {
  const git = (...args: string[]): string | null => {
    try {
      const run = Bun.spawnSync(["git", ...args], { cwd: root, stderr: "ignore" });
      return run.exitCode === 0 ? run.stdout.toString().trim() : null;
    } catch {
      return null; // git is not installed
    }
  };
  const id = git("rev-parse", "--short=12", "HEAD");
  if (id === null) return "unknown";
  return git("status", "--porcelain", "--", "src", "proto", "package-lock.json") === "" ? id : `${id}+`;
}

/** What src/version.ts reads. `publicPem` verifies the releases that this build takes updates from. */
export function stampedConstants(target: string, publicPem: string): Record<string, string> {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  return {
    AEGIS_VERSION: manifest.version,
    AEGIS_COMMIT: commitId(),
    AEGIS_TARGET: target,
    AEGIS_RELEASE_KEY: publicPem,
  };
}

/** Digest of everything that can change the executable. */
function fingerprint(stamped: Readonly<Record<string, string>>): string {
  const files = [...new Bun.Glob("{src,proto}/**/*").scanSync({ cwd: root })].filter(
    (path) => !path.endsWith(".test.ts"),
  );
  const hash = new Bun.CryptoHasher("sha256");
  for (const path of [
    ...files,
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "install/build.ts",
    "install/native.ts",
  ].sort())
    hash.update(`\0${path}\0`).update(readFileSync(join(root, path)));
  return hash.update(JSON.stringify([Bun.revision, stamped, nativeCompiler(stamped.AEGIS_TARGET ?? "")])).digest("hex");
}

/** The stamp names the file it belongs to, so an executable put there by hand is not taken for ours. */
function stampOf(executable: string, digest: string): string | null {
  const file = Bun.file(executable);
  return file.size === 0 ? null : `${digest} ${file.size} ${file.lastModified}\n`;
}

function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

/** Builds for this machine; answers whether anything had to be done. */
function buildHost(force: boolean): boolean {
  const target = `${process.platform}-${process.arch}`;
  const bunTarget = targets[target];
  if (bunTarget === undefined)
    throw new Error(`no target for ${target} yet; there is: ${Object.keys(targets).join(", ")}`);
  const define = stampedConstants(target, releaseKey(process.env).publicPem);
  const digest = fingerprint(define);
  const executable = join(dist, process.platform === "win32" ? "aegis.exe" : "aegis");
  const stampFile = join(dist, ".build-stamp");
  const stamp = stampOf(executable, digest);
  if (!force && stamp !== null && readOrNull(stampFile) === stamp) return false;

  mkdirSync(dist, { recursive: true });
  // Built beside and renamed: whoever runs the old one keeps it, and two builds at once do not meet.
  const scratch = mkdtempSync(join(dist, ".build-"));
  try {
    const fresh = join(scratch, "aegis");
    compile({ entry: join(root, "src/main.ts"), outfile: fresh, bunTarget, define, hardening, target });
    rmSync(stampFile, { force: true });
    renameSync(process.platform === "win32" ? `${fresh}.exe` : fresh, executable);
    const freshStamp = join(scratch, "stamp");
    writeFileSync(freshStamp, stampOf(executable, digest) ?? "");
    renameSync(freshStamp, stampFile);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return true;
}

if (import.meta.main) {
  try {
    const started = performance.now();
    if (buildHost(process.argv.includes("--force")))
      process.stderr.write(`built dist/aegis in ${((performance.now() - started) / 1000).toFixed(1)} s\n`);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
