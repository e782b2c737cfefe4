/** The layout is a rule and not a habit: every module of src, every dependency, every licence. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { importProblem, importsOf, moduleProblems, rooms } from "./support/architecture.ts";

const root = join(import.meta.dir, "..");
const read = (path: string) => readFileSync(join(root, path), "utf8");
const modules = [...new Bun.Glob("src/**/*.ts").scanSync({ cwd: root })]
  .map((path) => path.replaceAll("\\", "/"))
  .filter((path) => !path.startsWith("src/wire/gen/"))
  .sort();

describe("src", () => {
  test("every module keeps the table of rooms, the names and the owners", () => {
    expect(modules.length).toBeGreaterThan(0);
    expect(modules.flatMap((file) => moduleProblems(file, read(file)))).toEqual([]);
  });

  test("the table names no room that does not exist in it, and daemon and controller never meet", () => {
    for (const allowed of Object.values(rooms)) for (const name of allowed) expect(rooms).toHaveProperty(name);
    expect(rooms.daemon).not.toContain("controller");
    expect(rooms.controller).not.toContain("daemon");
    expect(Object.values(rooms).flat()).not.toContain("cli");
  });
});

describe("CONTRIBUTING.md", () => {
  test("shows the table that is enforced", () => {
    const words = (text = "") => [...text.matchAll(/`([a-z]+)`/g)].map((match) => match[1] ?? "");
    const rows = [...read("CONTRIBUTING.md").matchAll(/^\| `(\w+)\/` \|.*\| (.*) \|$/gm)];
    const shown = Object.fromEntries(rows.map(([, room = "", allowed = ""]) => [room, words(allowed)]));
    expect(shown.cli).toEqual(["wire", "native"]); // the two it may not import
    const others = Object.keys(rooms).filter((room) => room !== "cli" && !shown.cli?.includes(room));
    expect<unknown>({ ...shown, cli: others }).toEqual(rooms);
  });
});

describe("a forbidden import is reported", () => {
  const begin = "/** Why. */\n";
  const forbidden: [why: string, file: string, source: string][] = [
    ["another room", "src/daemon/session.ts", 'import { dispatch } from "../controller/dispatch.ts";'],
    ["types too", "src/controller/grpc.ts", 'import type { Session } from "../daemon/session.ts";'],
    ["inline types", "src/policy/match.ts", 'import { type Tool } from "../tools/tool.ts";'],
    ["type queries", "src/policy/match.ts", 'export type T = import("../tools/tool.ts").Tool;'],
    ["re-exports", "src/api/types.ts", 'export { x } from "../store/store.ts";'],
    ["export *", "src/api/types.ts", 'export * from "../store/store.ts";'],
    ["lazy imports", "src/tools/registry.ts", 'export const load = () => import("../daemon/run.ts");'],
    ["over several lines", "src/store/store.ts", 'import type {\n  A,\n  B,\n} from "../api/types.ts";'],
    ["from below", "src/controller/http/app.ts", 'import { run } from "../../daemon/run.ts";'],
    ["for its effect", "src/store/store.ts", 'import "../wire/service.ts";'],
    ["cli from a room", "src/daemon/run.ts", 'import { out } from "../cli/terminal.ts";'],
    ["main from cli", "src/cli/dev.ts", 'import { main } from "../main.ts";'],
    ["a room from main", "src/main.ts", 'import { run } from "./daemon/run.ts";'],
    ["wire from cli", "src/cli/dev.ts", 'import { aegis } from "../wire/gen/messages.js";'],
    ["a room from errors", "src/errors.ts", 'import { log } from "./platform/log.ts";'],
    ["test code", "src/daemon/run.ts", 'import { FakeClock } from "../../test/support/fake-clock.ts";'],
    ["grpc-js", "src/daemon/session.ts", 'import type { Client } from "@grpc/grpc-js";'],
    ["child_process", "src/tools/cmd-run.ts", 'import { spawn } from "node:child_process";'],
    ["sqlite", "src/controller/audit.ts", 'import { Database } from "bun:sqlite";'],
    ["a computed name", "src/cli/root.ts", "export const load = (name: string) => import(name);"],
  ];
  for (const [why, file, source] of forbidden)
    test(why, () => expect(moduleProblems(file, begin + source)).toHaveLength(1));

  test("and an allowed one is not", () => {
    expect(importProblem("src/daemon/session.ts", "../wire/service.ts")).toBeNull();
    expect(importProblem("src/controller/http/app.ts", "../../errors.ts")).toBeNull();
    expect(importProblem("src/daemon/session.test.ts", "../../test/support/fake-clock.ts")).toBeNull();
    expect(importProblem("src/main.ts", "./cli/root.ts")).toBeNull();
    expect(importsOf('// import x from "../a.ts"\n/* import("../b.ts") */\nconst s = "https://c";')).toEqual([]);
  });
});

describe("other rules are seen to fail", () => {
  const begin = "/** Why. */\n";
  const broken: [why: string, file: string, source: string][] = [
    ["spawning", "src/tools/cmd-run.ts", `${begin}const child = Bun.spawn(["sh"]);`],
    ["spawning by name", "src/tools/cmd-run.ts", `${begin}import { spawn } from "bun";`],
    ["a bare timer", "src/daemon/session.ts", `${begin}setTimeout(() => {}, 5);`],
    ["a timer behind globalThis", "src/daemon/session.ts", `${begin}globalThis.setInterval(() => {}, 5);`],
    ["a promised timer", "src/daemon/session.ts", `${begin}import { setTimeout as wait } from "node:timers/promises";`],
    ["a barrel", "src/daemon/index.ts", begin],
    ["a vague name", "src/daemon/utils.ts", begin],
    ["a vague folder", "src/daemon/common/ring.ts", begin],
    ["camelCase", "src/daemon/grpcLink.ts", begin],
    ["a new room", "src/misfits/ring.ts", begin],
    ["a new root file", "src/ring.ts", begin],
    ["no reason to exist", "src/daemon/ring.ts", "export const ring = 1;"],
    ["an empty reason", "src/daemon/ring.ts", "/** */\nexport const ring = 1;"],
  ];
  for (const [why, file, source] of broken) test(why, () => expect(moduleProblems(file, source)).not.toEqual([]));
});

describe("dependencies", () => {
  interface Manifest {
    dependencies: Record<string, string>;
    devDependencies: Record<string, string>;
  }
  const manifest = JSON.parse(read("package.json")) as Manifest;
  const all = { ...manifest.dependencies, ...manifest.devDependencies };

  test("are pinned to one version each", () => {
    for (const [name, version] of Object.entries(all))
      expect(`${name} ${version}`).toMatch(/ \d+\.\d+\.\d+(?:-[\w.]+)?$/);
  });

  test("are each explained in CONTRIBUTING.md", () => {
    const rows = read("CONTRIBUTING.md").split("\n");
    const explained = (name: string) =>
      rows.some((row) => row.startsWith(`| \`${name}\` |`) && row.length > name.length + 20);
    expect(Object.keys(all).filter((name) => !explained(name))).toEqual([]);
  });

  test("of the executable are imported by it", () => {
    const sources = [...modules, "src/wire/gen/messages.js"].filter((file) => !file.endsWith(".test.ts"));
    const used = new Set(sources.flatMap((file) => importsOf(read(file))));
    const isUsed = (name: string) => [...used].some((path) => path === name || path.startsWith(`${name}/`));
    expect(Object.keys(manifest.dependencies).filter((name) => name !== "bun" && !isUsed(name))).toEqual([]);
  });

  test("of the executable have licences that ask for nothing but their notice", () => {
    const permissive = new Set(["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "0BSD", "BlueOak-1.0.0"]);
    const { packages } = JSON.parse(read("package-lock.json")) as {
      packages: Record<string, { dev?: boolean; license?: string }>;
    };
    const shipped = Object.entries(packages).filter(([path, entry]) => path !== "" && !entry.dev);
    expect(shipped.length).toBeGreaterThan(0);
    const alternatives = (license = "none stated") => license.replace(/[()]/g, "").split(" OR ");
    const others = shipped.filter(([, { license }]) => !alternatives(license).some((one) => permissive.has(one)));
    expect(others.map(([path, { license }]) => `${path}: ${license}`)).toEqual([]);
  });
});
