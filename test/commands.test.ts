/** The command tree against the product's own table: no flag it does not name, no command that shows no example. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Command, Group } from "../src/cli/command.ts";
import { isRepeatable } from "../src/cli/command.ts";
import { isLeaf } from "../src/cli/root.ts";
import { spelling } from "../src/cli/strict.ts";
import { tree } from "../src/cli/tree.ts";

/** Every flag that a command may have, besides -o where a result is printed; `...` marks those that may be repeated. */
const table: Readonly<Record<string, string>> = {
  dev: "--data-dir --once --port --grpc-port",
  "controller init": "--data-dir --public-endpoint --tenant --offline-root",
  "controller start": "--data-dir --grpc-port --port --tls-cert --tls-key --require-strict --insecure-http",
  "controller service install": "",
  "controller service uninstall": "",
  "controller service status": "",
  "controller token create": "--scope... --tenant --context... --expires --name --data-dir",
  "controller token ls": "--tenant --data-dir",
  "controller token revoke": "--tenant --data-dir",
  "controller tenant ls": "--data-dir",
  "controller tenant rm": "--data-dir",
  "controller keys ls": "--data-dir",
  "controller keys rotate": "--data-dir --offline-root",
  "controller keys revoke": "--data-dir --offline-root",
  "controller ca": "--data-dir",
  "controller backup": "--data-dir",
  "controller restore": "--data-dir",
  "controller audit export": "--data-dir",
  "controller audit verify": "--data-dir",
  login: "--token-file --fingerprint",
  logout: "",
  whoami: "",
  "edge token issue": "--name --ttl --tag... --for --compat",
  "edge enroll":
    "--token-file --config --state-dir --name --label... --non-interactive --force --keep-existing --dry-run --minimal --no-service --allow... --full-access --allow-unsandboxed",
  "edge run": "--config --state-dir --once",
  daemon: "--config --state-dir --once",
  "edge status": "--state-dir",
  "edge log": "--state-dir",
  "edge pause": "--state-dir",
  "edge resume": "--state-dir",
  "edge policy test": "--context --tool --arg... --state-dir --config",
  "edge logout": "--revoke --service --purge --force --state-dir",
  "edge secret set": "--state-dir",
  "edge secret ls": "--state-dir",
  "edge secret rm": "--state-dir",
  "edge service install":
    "--force --keep-existing --non-interactive --print --platform --system --proxy --allow... --allow-user-bus --allow-jit --allow-unsandboxed",
  "edge service uninstall": "--force --non-interactive --print --platform --system",
  "edge service reinstall":
    "--force --keep-existing --non-interactive --print --platform --system --proxy --allow... --allow-user-bus --allow-jit --allow-unsandboxed",
  "edge service status": "--platform --system",
  "edge service restart": "--platform --system",
  "edge service logs": "--follow --lines --platform --system",
  "edge keys rotate": "--keep-old --force --state-dir",
  "edge keys revoke-remote": "",
  "edge token refresh": "--force --state-dir",
  "edge ls": "--tag... --label... --connected --all",
  "edge tag add": "",
  "edge tag rm": "",
  "edge group ls": "",
  "edge group create": "--selector",
  "edge group set-pinned": "--add... --rm...",
  "edge group rm": "",
  "edge exec": "--context --deadline --cwd --env... --stdin --job",
  "edge cp": "",
  "edge fleet preview": "--target",
  "edge fleet run":
    "--target --tool --arg... --args --context --mode --max-concurrency --on-error --require-min --deadline --yes",
  "edge fleet cancel": "",
  "edge fleet runs": "",
  "edge fleet show": "",
  "edge fleet keys rotate": "--target --yes",
  "edge fleet update": "--target --context --yes",
  "operator key create": "",
  "operator key show": "",
  mcp: "",
  doctor: "--state-dir --config",
  update: "--check --version --rollback",
  completion: "",
  "install path": "",
};

/** Second names, whose help shows the example of the first. */
const aliases: Readonly<Record<string, string>> = { daemon: "edge run" };

interface Found {
  path: string;
  summary: string;
  command: Command;
}

async function commands(group: Group, path: string[] = []): Promise<Found[]> {
  const found = Object.entries(group.commands).map(async ([name, node]): Promise<Found[]> => {
    const words = [...path, name];
    return isLeaf(node)
      ? [{ path: words.join(" "), summary: node.summary, command: await node.load() }]
      : await commands(node, words);
  });
  return (await Promise.all(found)).flat();
}

function groups(group: Group, path = "aegis"): [string, Group][] {
  const below = Object.entries(group.commands).flatMap(([name, node]) =>
    isLeaf(node) ? [] : groups(node, `${path} ${name}`),
  );
  return [[path, group], ...below];
}

const all = await commands(tree);

const src = join(import.meta.dir, "../src");
const transpiler = new Bun.Transpiler({ loader: "ts" });

/** A module and all that is loaded with it, as paths below src and names of packages. */
function loadedWith(module: string, seen = new Set<string>()): Set<string> {
  if (seen.has(module)) return seen;
  seen.add(module);
  for (const { path, kind } of transpiler.scanImports(readFileSync(join(src, module), "utf8")))
    if (kind === "import-statement" && path.startsWith(".")) loadedWith(join(dirname(module), path), seen);
    else if (kind === "import-statement") seen.add(path);
  return seen;
}

/** The module of each command, found by being the one that exports it. */
const moduleOf = new Map<unknown, string>();
for (const name of readdirSync(join(src, "cli"), { recursive: true, encoding: "utf8" })) {
  if (!name.endsWith(".ts") || name.endsWith(".test.ts")) continue;
  const exported = Object.values<unknown>(await import(join(src, "cli", name)));
  for (const value of exported)
    for (const one of [value, ...Object.values(Object(value) as object)]) moduleOf.set(one, join("cli", name));
}

/** What commands ask of flags: `args.name`, `args["name"]`, `every("name")`, `{ name } = ...`. */
const reads = (text: string, flag: string): boolean =>
  new RegExp(
    `\\b(?:args|texts|flags)\\.${flag}\\b|\\["${flag}"\\]|\\("${flag}"[,)]|\\{[^{}]*\\b${flag}\\b[^{}]*\\} = `,
  ).test(text);

/** Said by scripts to commands that ask nothing anyway. */
const askNothing: readonly string[] = ["edge service install", "edge service reinstall"];
const flagsOf = ({ command }: Found) =>
  Object.entries(command.flags)
    .filter(([, def]) => def.type !== "positional")
    .map(([name, def]) => `${spelling(name, def)}${isRepeatable(def) ? "..." : ""}`);

describe("every command", () => {
  test("is one of the product's", () => {
    expect(all.length).toBeGreaterThan(15);
    expect(all.map(({ path }) => path).filter((path) => !(path in table))).toEqual([]);
  });

  for (const found of all) {
    const { path, summary, command } = found;
    test(`aegis ${path} has only flags of the table, each explained once`, () => {
      const allowed = [...(table[path] ?? "").split(" "), "--output"];
      expect(flagsOf(found).filter((flag) => !allowed.includes(flag))).toEqual([]);
      for (const [name, def] of Object.entries(command.flags)) {
        const text = (def.type === "boolean" && def.negativeDescription) || def.description;
        expect(`${name}: ${text}`).toMatch(/: \S.{5,}/);
      }
    });

    test(`aegis ${path} looks at each of its flags`, () => {
      const module = moduleOf.get(command);
      expect(module).toBeDefined();
      const own = [...loadedWith(module ?? "")].filter((name) => name.startsWith("cli/"));
      const text = own.map((name) => readFileSync(join(src, name), "utf8")).join("\n");
      const unread = Object.keys(command.flags).filter((flag) => !reads(text, flag));
      expect(unread).toEqual(askNothing.includes(path) ? ["non-interactive"] : []);
    });

    test(`aegis ${path} says what it does and shows an example that it accepts`, async () => {
      expect(summary).toMatch(/^[a-z].*[^.]$/);
      const shown = aliases[path] ?? path;
      expect(command.example).toStartWith(`aegis ${shown}`);
      const { check } = await import("../src/cli/strict.ts");
      const words = shellWords(command.example).slice(1 + shown.split(" ").length);
      expect(() => check(words, command, path)).not.toThrow();
    });

    const required = Object.entries(command.flags).find(([, def]) => def.type !== "positional" && def.required);
    if (required)
      test(`aegis ${path} names the flag that is missing, and how it is written`, async () => {
        const { check } = await import("../src/cli/strict.ts");
        const missing = new RegExp(`^${spelling(...required)} [A-Z]+ is missing$`);
        expect(() => check([], command, path)).toThrow(missing);
      });
  }

  test("is loaded only when it is typed, and the version before anything else", () => {
    expect([...loadedWith("main.ts")].sort()).toEqual(["cli/root.ts", "errors.ts", "main.ts", "version.ts"]);
    expect([...loadedWith("cli/tree.ts")].sort()).toEqual(["citty", "cli/command.ts", "cli/tree.ts"]);
    expect([...loadedWith("cli/edge/status.ts")].filter((name) => name.startsWith("controller/"))).toEqual([]);
  });

  test("is in a group that says what it is for", () => {
    for (const [path, group] of groups(tree)) expect(`${path}: ${group.summary}`).toMatch(/: .{10,}\.$/);
  });
});

/** Words of an example: quotes group, pipes and redirections end it. */
function shellWords(line: string): string[] {
  const command = line.replace(/^.*\|\s*(?=aegis )/, "").replace(/\s+[|<>].*$/, "");
  return [...command.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
    ([, single, double, bare]) => single ?? double ?? bare ?? "",
  );
}
