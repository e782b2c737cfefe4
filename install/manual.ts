/** The manual page and the completions of a release, written from the same command tree that the executable has. */
import { scriptFor, wordsOf } from "../src/cli/completion-scripts.ts";
import { commandHelp } from "../src/cli/help.ts";
import { isLeaf } from "../src/cli/root.ts";
import { tree } from "../src/cli/tree.ts";

/** Roff in which no line of ours is taken for a request, and a hyphen stays one that can be copied. */
const roff = (text: string): string =>
  text
    .replace(/\\/g, "\\e")
    .replace(/-/g, "\\-")
    .replace(/^([.'])/gm, "\\&$1");

/** `aegis.1`. */
export async function manualPage(version: string): Promise<string> {
  const lines = [
    `.TH AEGIS 1 "" "aegis ${version}" "aegis"`,
    ".SH NAME",
    "aegis \\- edge daemon, controller and command line",
    ".SH SYNOPSIS",
    ".B aegis",
    ".I COMMAND",
    ".SH DESCRIPTION",
    roff(tree.summary),
    ".SH COMMANDS",
  ];
  for (const { path, help } of await everyCommand())
    lines.push(`.SS ${roff(path)}`, ".nf", roff(help.trimEnd()), ".fi");
  lines.push(".SH SEE ALSO", roff("https://docs.100monkeys.ai/deployment/edge-daemon-installation"));
  return `${lines.join("\n")}\n`;
}

async function everyCommand(): Promise<{ path: string; help: string }[]> {
  const found: { path: string; help: string }[] = [];
  const visit = async (path: string, node: Parameters<typeof isLeaf>[0]): Promise<void> => {
    if (isLeaf(node)) found.push({ path, help: commandHelp(path, node.summary, await node.load()) });
    else for (const [name, child] of Object.entries(node.commands)) await visit(`${path} ${name}`, child);
  };
  await visit("aegis", tree);
  return found;
}

/** Where each shell looks for them, by path inside the archive. */
const completionFiles = {
  bash: "completions/aegis.bash",
  zsh: "completions/_aegis",
  fish: "completions/aegis.fish",
  powershell: "completions/aegis.ps1",
} as const;

export async function completions(): Promise<[path: string, text: string][]> {
  const words = await wordsOf(tree);
  return Object.entries(completionFiles).map(([shell, path]) => [path, scriptFor(shell, words)]);
}
