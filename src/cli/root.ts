/** The way from the words typed to one command and its exit status. */
import { AegisError } from "../errors.ts";
import type { StoppedBySignal } from "../platform/signals.ts";
import { version } from "../version.ts";
import type { CommandData, Group, Leaf, Surroundings } from "./command.ts";

export async function main(argv: readonly string[]): Promise<void> {
  // Alone on its path, so that asking for the version loads nothing else; making process.stdout would take half of its time.
  if (argv.length === 1 && argv[0] === "--version") {
    console.log(`aegis ${version}`);
    return;
  }
  const { tree } = await import("./tree.ts");
  const { openTerminal } = await import("./terminal.ts");
  const { stopOnSignals } = await import("../platform/signals.ts");
  const stop = new AbortController();
  const terminal = openTerminal(process, process.env, () =>
    stop.abort({ signal: "SIGPIPE" } satisfies StoppedBySignal),
  );
  stopOnSignals(stop, (status) => process.exit(status));
  const { homedir } = await import("node:os");
  const surroundings = { terminal, env: process.env, home: homedir(), stop: stop.signal };
  const status = await dispatch(tree, argv, surroundings).catch((thrown: unknown) => {
    const error = AegisError.from(thrown);
    terminal.fail(error);
    return error.exitCode;
  });
  await terminal.flush();
  // grpc-js holds a closed connection for seconds; whoever waits for this process is not held with it.
  process.exit(status);
}

/** Finds the command, checks its flags, runs it; answers the exit status. */
export async function dispatch(tree: Group, argv: readonly string[], surroundings: Surroundings): Promise<number> {
  const { terminal } = surroundings;
  const { node, path, rest } = walk(tree, argv);
  const { asksForHelp, check } = await import("./strict.ts");
  if (!isLeaf(node)) {
    const [word] = rest;
    if (word !== undefined && word !== "--help" && word !== "-h") throw await unknown(word, node, path);
    const { groupHelp } = await import("./help.ts");
    await terminal.data(groupHelp(path, node));
    return 0;
  }
  const command = await node.load();
  if (asksForHelp(rest)) {
    const { commandHelp } = await import("./help.ts");
    await terminal.data(commandHelp(path, node.summary, command));
    return 0;
  }
  const checked = check(rest, command, path);
  const { runCommand } = await import("citty");
  const data: CommandData = { ...surroundings, repeated: checked.repeated, rest: checked.rest };
  const { result } = await runCommand(command, { rawArgs: checked.before, data });
  return typeof result === "number" ? result : 0;
}

export const isLeaf = (node: Group | Leaf): node is Leaf => "load" in node;

/** Follows the words down the tree as far as they name something. */
export function walk(tree: Group, argv: readonly string[]): { node: Group | Leaf; path: string; rest: string[] } {
  let node: Group | Leaf = tree;
  let path = "aegis";
  let depth = 0;
  while (!isLeaf(node)) {
    const word: string | undefined = argv[depth];
    const next: Group | Leaf | undefined =
      word !== undefined && Object.hasOwn(node.commands, word) ? node.commands[word] : undefined;
    if (!next) break;
    node = next;
    path += ` ${word}`;
    depth += 1;
  }
  return { node, path, rest: argv.slice(depth) };
}

async function unknown(word: string, group: Group, path: string): Promise<AegisError> {
  const { nearest } = await import("../platform/nearest.ts");
  const isFlag = word.startsWith("-");
  const candidates = isFlag ? ["--help", "--version"] : Object.keys(group.commands);
  const meant = nearest(word, candidates);
  const what = isFlag ? `unknown flag ${word}` : `unknown command ${JSON.stringify(word)}`;
  return new AegisError("usage", `${what}${meant ? `; did you mean ${meant}?` : ""}`, { hint: `${path} --help` });
}
