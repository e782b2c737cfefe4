/** The layout of src as rules over one file and what it imports; CONTRIBUTING.md shows the same table. */
import { posix } from "node:path";

/** Room -> the rooms it may import besides itself. Everyone may import errors.ts and version.ts. */
export const rooms: Readonly<Record<string, readonly string[]>> = {
  platform: [],
  native: ["platform"],
  wire: ["platform"],
  policy: ["platform"],
  api: ["platform"],
  config: ["platform", "policy", "envelope"],
  envelope: ["platform", "wire"],
  identity: ["platform", "envelope"],
  service: ["platform"],
  tools: ["platform", "policy", "native", "service"],
  release: ["platform"],
  store: ["platform"],
  telemetry: ["platform", "config"],
  daemon: ["platform", "native", "tools", "policy", "envelope", "identity", "wire", "config", "release", "telemetry"],
  controller: ["platform", "store", "api", "envelope", "identity", "wire", "config", "telemetry"],
  cli: [
    ...["platform", "policy", "api", "config", "envelope", "identity", "service", "tools"],
    ...["release", "store", "telemetry", "daemon", "controller"],
  ],
};

/** Packages that belong to a few files. A prefix ending in `/` stands for every file below it. */
const owners: Readonly<Record<string, readonly string[]>> = {
  "@grpc/grpc-js": [
    ...["src/daemon/grpc-link.ts", "src/daemon/tunnel.ts"],
    ...["src/controller/grpc.ts", "src/controller/grpc-health.ts", "src/controller/grpc-reflection.ts"],
    "src/telemetry/collector.ts",
  ],
  "node:child_process": ["src/platform/process.ts"],
  "bun:sqlite": ["src/store/"],
};

/** What only one file may call, because the world behind it cannot be repeated in a test. */
const calls: readonly { what: string; pattern: RegExp; owner: string }[] = [
  { what: "spawns", pattern: /\bBun\s*\.\s*(?:spawn|spawnSync|\$)/, owner: "src/platform/process.ts" },
  {
    what: "spawns",
    pattern: /\bimport\s*\{[^}]*(?:\bspawn(?:Sync)?\b|\$)[^}]*\}\s*from\s*"bun"/,
    owner: "src/platform/process.ts",
  },
  {
    what: "sets a bare timer",
    pattern:
      /(?<![.\w])(?:globalThis\.)?set(?:Timeout|Interval)\s*\(|\bBun\.sleep|\bAbortSignal\.timeout\b|"(?:node:)?timers/,
    owner: "src/platform/clock.ts",
  },
];

const rootFiles = ["src/main.ts", "src/errors.ts", "src/version.ts"];
const vagueName = /^(?:index|utils?|helpers?|common|misc|shared|manager2)$/;
const kebab = /^[a-z0-9]+(?:-[a-z0-9]+)*$/;

const isTest = (file: string) => file.endsWith(".test.ts");

/** Source without comments, so that a sentence about a timer is no timer. Strings keep what looks like a comment. */
const withoutComments = (source: string): string =>
  source.replace(
    /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)|\/\*[\s\S]*?\*\/|(?<![:\\])\/\/[^\n]*/g,
    "$1",
  );

/** Every module a file names: static, type-only, re-exported, dynamic and `import("x").Type`. */
export function importsOf(source: string): string[] {
  const found = new Bun.Transpiler({ loader: "ts" }).scanImports(source).map((one) => one.path);
  const code = withoutComments(source);
  const forms = [
    /\b(?:import|export)\b[^;"'`()]*?\bfrom\s*["']([^"']+)["']/g, // also type-only ones, which the scanner drops
    /\bimport\s*["']([^"']+)["']/g,
    /\b(?:import|require)\s*\(\s*["']([^"']+)["']/g,
  ];
  for (const form of forms) for (const match of code.matchAll(form)) if (match[1] !== undefined) found.push(match[1]);
  return [...new Set(found)];
}

/** The first folder below src, or null for a file of src itself or outside it. */
const roomOf = (file: string): string | null => /^src\/([^/]+)\//.exec(file)?.[1] ?? null;

/** What is wrong with one import. `file` and the answer's paths are relative to the repository. */
export function importProblem(file: string, specifier: string): string | null {
  if (!specifier.startsWith(".")) {
    const allowed = Object.entries(owners).find(
      ([name]) => specifier === name || specifier.startsWith(`${name}/`),
    )?.[1];
    const isOwner =
      allowed === undefined ||
      allowed.some((owner) => file === owner || (owner.endsWith("/") && file.startsWith(owner)));
    return isOwner || (isTest(file) && specifier === "bun:sqlite")
      ? null
      : `${file} imports ${specifier}, which belongs to ${allowed?.join(", ")}`;
  }
  const target = posix.join(posix.dirname(file), specifier);
  const room = roomOf(file);
  const targetRoom = roomOf(target);
  const refused = `${file} imports ${target}`;
  if (target === "src/main.ts") return `${refused}, which nobody may import`;
  if (target === "src/errors.ts" || target === "src/version.ts") return null;
  if (!target.startsWith("src/"))
    return (isTest(file) && target.startsWith("test/")) || target === "package.json"
      ? null
      : `${refused}, which is outside src`;
  if (file === "src/main.ts") return targetRoom === "cli" ? null : `${refused}, but main.ts may import cli only`;
  if (room === null) return `${refused}, but ${posix.basename(file)} belongs to no room and may import none`;
  if (targetRoom === room || (targetRoom !== null && rooms[room]?.includes(targetRoom))) return null;
  return `${refused}, but ${room} may import only: ${rooms[room]?.join(" ") || "nothing"}`;
}

/** Everything wrong with one hand-written module of src: where it lies, how it starts, what it imports and calls. */
export function moduleProblems(file: string, source: string): string[] {
  const problems = importsOf(source).map((specifier) => importProblem(file, specifier));
  const folders = file.split("/").slice(1, -1);
  const name = posix.basename(file).replace(/\.(?:test\.)?ts$/, "");
  for (const part of [...folders, name]) {
    if (vagueName.test(part)) problems.push(`${file}: "${part}" says nothing about what is inside`);
    else if (!kebab.test(part)) problems.push(`${file}: "${part}" is not kebab-case`);
  }
  const room = roomOf(file);
  if (room === null && !rootFiles.includes(file)) problems.push(`${file} belongs to no room`);
  if (room !== null && rooms[room] === undefined) problems.push(`${file}: there is no room "${room}"`);
  if (!isTest(file) && !/^\/\*\*(?:\n \*)? [^\s*/]/.test(source))
    problems.push(`${file} does not begin with a comment that says why it exists`);
  const code = withoutComments(source);
  if (/\bimport\s*\(\s*[^"'\s]/.test(code)) problems.push(`${file} computes the name of what it imports`);
  if (!isTest(file))
    for (const { what, pattern, owner } of calls)
      if (file !== owner && pattern.test(code)) problems.push(`${file} ${what}, which only ${owner} may`);
  return problems.filter((problem) => problem !== null);
}
