/** Compiles src/native for one target where a C compiler for it is installed, and says by name what is missing where not. */
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const source = "src/native";

/** What goes into the executable beside JavaScript. Its sums are checked again at run time, by src/native/find.ts. */
export interface NativeParts {
  /** Name -> path of what was compiled. */
  files: Readonly<Record<string, string>>;
  /** Name -> SHA-256 in hex. */
  sums: Readonly<Record<string, string>>;
  /** Why parts are missing; null when none is, or when this target has none. */
  missing: string | null;
}

const common = ["-std=c11", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none"];
const addon = [...common, "-shared", "-fPIC", "-fvisibility=hidden"];
const program = [...common, "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"];

/** Name -> how it is compiled; the first way that works is taken. A static launcher runs whatever its host has. */
const parts: Record<string, { sources: string[]; ways: string[][] }> = {
  "aegis-launch": {
    sources: ["launch.c", "confine.c", "supervise.c"],
    ways: [[...program, "-static"], program],
  },
  "aegis-rules": { sources: ["rules.c", "confine.c"], ways: [addon] },
  "aegis-notify": { sources: ["notify.c"], ways: [addon] },
  "aegis-trim": { sources: ["trim.c"], ways: [addon] },
};

/** Our name of a Linux target's CPU -> its compiler's prefix. */
const triples: Readonly<Record<string, string>> = { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" };

/** The C compiler for a target: this machine's own, or the one Debian calls after the other CPU. */
function compilerFor(target: string): { command: string | null; wanted: string } {
  const [, cpu = ""] = target.split("-");
  const cross = `${triples[cpu]}-gcc`;
  const names = target === `${process.platform}-${process.arch}` ? ["cc", "gcc", "clang"] : [cross];
  return {
    command:
      names.map((name) => Bun.which(name, { PATH: process.env.PATH ?? "" })).find((path) => path !== null) ?? null,
    wanted: names.join(" or "),
  };
}

const hasParts = (target: string): boolean => target.startsWith("linux-") && (target.split("-")[1] ?? "") in triples;

/** What decides, beside the sources, what comes out: part of the build's stamp. */
export function nativeCompiler(target: string): string {
  if (!hasParts(target)) return "none needed";
  const { command } = compilerFor(target);
  return command === null ? "none" : `${command} ${Bun.spawnSync([command, "--version"], { stderr: "ignore" }).stdout}`;
}

/** Compiles into dist/native/TARGET, where a run from source finds them too. */
export function buildNative(target: string): NativeParts {
  if (!hasParts(target)) return { files: {}, sums: {}, missing: null };
  const { command, wanted } = compilerFor(target);
  if (command === null)
    return { files: {}, sums: {}, missing: `there was no C compiler (${wanted}) when this executable was built` };
  const folder = join(root, "dist/native", target);
  mkdirSync(folder, { recursive: true });
  const scratch = mkdtempSync(join(folder, ".build-"));
  const [files, sums, failures]: [Record<string, string>, Record<string, string>, string[]] = [{}, {}, []];
  try {
    for (const [name, { sources, ways }] of Object.entries(parts)) {
      const fresh = join(scratch, name);
      const failure = compileOne(command, sources, ways, fresh);
      if (failure !== null) {
        failures.push(`${name} could not be compiled: ${failure}`);
        continue;
      }
      sums[name] = createHash("sha256").update(readFileSync(fresh)).digest("hex");
      files[name] = join(folder, name);
      renameSync(fresh, files[name]);
    }
    writeFileSync(join(scratch, "sums.json"), `${JSON.stringify(sums, null, 2)}\n`);
    renameSync(join(scratch, "sums.json"), join(folder, "sums.json"));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  if (failures.length > 0) process.stderr.write(`${failures.join("\n")}\n`);
  return { files, sums, missing: failures.length > 0 ? failures.map((line) => line.split("\n")[0]).join("; ") : null };
}

/** null when one way worked, else what the compiler said to the last. */
function compileOne(compiler: string, sources: string[], ways: string[][], out: string): string | null {
  let said = "";
  for (const flags of ways) {
    const command = [compiler, ...flags, "-o", out, ...sources.map((name) => join(source, name))];
    const run = Bun.spawnSync(command, { cwd: root, stdout: "pipe", stderr: "pipe" });
    if (run.exitCode === 0) {
      chmodSync(out, 0o755);
      return null;
    }
    said = `${run.stderr}`.trim() || `ended with ${run.exitCode}`;
  }
  return said;
}
