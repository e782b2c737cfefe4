/** README does what it says: its blocks are typed into terminals of their own, from the first to the last. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseYAML } from "confbox/yaml";
import { controllerConfigPath, loadControllerConfig, renderControllerConfig } from "../src/config/controller.ts";
import { limits } from "../src/platform/limits.ts";
import { defaultContext } from "../src/policy/written-contexts.ts";
import { type TerminalShell, terminals } from "./support/terminals.ts";

setDefaultTimeout(120_000);

interface Block {
  /** The number of the terminal that was named last; 0 before the first. */
  terminal: number;
  kind: "sh" | "console";
  text: string;
}

/** Fenced blocks in order; `**Terminal N` chooses where the following ones are typed. */
function blocksOf(markdown: string): Block[] {
  const blocks: Block[] = [];
  let terminal = 0;
  for (const [, named, kind, text] of markdown.matchAll(/^\*\*Terminal (\d+)|^```(sh|console)\n([\s\S]*?)^```/gm)) {
    if (named !== undefined) terminal = Number(named);
    else if (kind === "sh" || kind === "console") blocks.push({ terminal, kind, text: text ?? "" });
  }
  return blocks;
}

const root = join(import.meta.dir, "..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const blocks = blocksOf(readme);
const home = mkdtempSync(join(tmpdir(), "aegis-docs-"));
const place = await terminals({ PATH: process.env.PATH ?? "", HOME: home, npm_config_update_notifier: "false" }, root);
afterAll(async () => {
  await place.close();
  rmSync(home, { recursive: true, force: true });
});

/** What goes on for good, and what shows that it does. */
const lasting: readonly [command: RegExp, ready: RegExp][] = [
  [/^aegis controller start$/m, /"event":"controller_started"/],
  [/^aegis edge run$/m, /"event":"connected"/],
];

test("README prints the policy that a fresh host has", () => {
  const [, shown = ""] = /^```yaml\n(security_contexts:[\s\S]*?)^```/m.exec(readme) ?? [];
  expect(parseYAML(shown)).toEqual({ security_contexts: [defaultContext({ folders: [] })] });
});

test("README names the limits that there are", async () => {
  const [, shown = ""] = /^```yaml\n(limits:[\s\S]*?)^```/m.exec(readme) ?? [];
  const config = { controllerId: randomUUID(), publicEndpoint: "localhost:50056", createdAt: "2026-01-01T00:00:00Z" };
  writeFileSync(controllerConfigPath(home), renderControllerConfig(config));
  const { limits: unless } = await loadControllerConfig(home);
  writeFileSync(controllerConfigPath(home), renderControllerConfig(config) + shown);
  expect((await loadControllerConfig(home)).limits).toEqual(unless);
  const named = Object.keys((parseYAML(shown) as { limits: object }).limits);
  expect(named).toHaveLength(Object.keys(unless).length);
  const { messageBytes, argsBytes, requestBodyBytes, callsPerHost, queuedCallsPerHost, outputBytes } = limits;
  const words = readme.replace(/\s+/g, " ");
  const MiB = (bytes: number) => `${bytes / 2 ** 20} MiB`;
  expect(words).toContain(`a message has at most ${MiB(messageBytes)}, arguments ${MiB(argsBytes)}`);
  expect(words).toContain(`a REST request ${MiB(requestBodyBytes)}; a host runs ${callsPerHost} calls at once`);
  expect(words).toContain(`lets ${queuedCallsPerHost} wait.`);
  expect(words).toContain(`\`max_response_size\` (${MiB(outputBytes)} of each stream is kept)`);
});

test("README's newcomer path runs as it is written", async () => {
  const shells = new Map<number, TerminalShell>();
  const printed: string[] = [];
  for (const { terminal, kind, text } of blocks) {
    const shell = shells.get(terminal) ?? place.open(`terminal ${terminal}`);
    shells.set(terminal, shell);
    if (kind === "sh") {
      const ready = lasting.find(([command]) => command.test(text))?.[1];
      printed.push(await shell.type(text, ready));
      continue;
    }
    // A console block shows what is refused.
    for (const [, command = ""] of text.matchAll(/^\$ (.+)$/gm))
      printed.push(await shell.type(`${command} && exit 1; echo "exit status $?"`));
  }
  const all = printed.join("\n");
  expect(all).toMatch(/^Linux \S+$/m);
  expect(all).toMatch(/root key +SHA256:/);
  expect(all).toMatch(/^demo-host +[0-9a-f]{8} +connected/m);
  expect(all).toMatch(/^Filesystem +Size/m);
  expect(all).toMatch(/^demo-host \| \S+$/m);
  expect(all).toMatch(/complete: 1 ok/);
  expect(all).toMatch(/error: policy_violation: .*cat/);
  expect(all).toContain("exit status 255");
  expect(all).toMatch(/^operator-only +yes$/m);
  expect(all).toMatch(/^ +vault {2}[0-9a-f-]{36}$/m);
  expect(all).toMatch(/^vault \| \S+$/m);
  expect(all).toMatch(/operator_signature_required: context "default" runs only what a trusted operator has signed/);
  expect(all).toMatch(/^verdict +allowed\nby +default\.capabilities\[2\]\ntouches +run \S*uname -a$/m);
  expect(all).toMatch(/^verdict +denied$[\s\S]*?holds? "cat"[\s\S]*?exit status 3/m);
  expect(all).toMatch(/args_allowlist does not hold "\/etc\/passwd"/);
  expect(all).toMatch(/ admin +default +cmd\.run .*"cat".* refused +\S+ +policy_violation/);
  expect(all).toMatch(/^identity +(?:protected|readable by tools)/m);
  expect(all).toMatch(/node\.key" is closed to every tool/);
  expect(all).toMatch(/^\[secret\]$/m);
  expect(all).toMatch(/"principal":"agent"/);
  expect(all).toMatch(/"resolved":\[.*"name":"demo-host"/);
  expect(all).toMatch(/^event: command_result\ndata: .*"ok":true/m);
  expect(all).toMatch(/"items":\[\{"run_id":/);
  expect(all).toMatch(/"serverInfo":\{"name":"aegis"/);
  expect(all).toMatch(/"code":"forbidden".*aegis\.admin[\s\S]*exit status 22/);
  expect(all).toMatch(/^record +whole$[\s\S]*^record +whole$[\s\S]*^record +\d+ problems?$/m);
  expect(all).toMatch(/warning: row \d+: it was changed: its hash is another\nexit status 1$/m);
  expect(all).toMatch(/^former key +SHA256:\S+\ntoken good until/m);
  expect(all).toMatch(/^command +revoked +SHA256:/m);
  expect(shells.size).toBe(8);
});
