/** The arguments of a command: what a caller may write, and what policy is asked about it. */
import { z } from "zod";
import { splitWords } from "../platform/word-split.ts";
import type { Access } from "../policy/access.ts";
import { quote } from "../policy/quote.ts";
import { findExecutable, type SearchOptions } from "./find-executable.ts";
import { parseArgs } from "./parse-args.ts";
import { locate, type Target } from "./path-guard.ts";

/** Longest a command may be asked to run, in seconds. */
const maxTimeoutSecs = 7 * 24 * 3600;
/** Longest one call waits for a command that may go on as a job. */
export const maxWaitSecs = 600;

const seconds = () => z.number().positive().max(maxTimeoutSecs).optional();

export const commandSchema = z.strictObject({
  command: z
    .string()
    .min(1)
    .optional()
    .describe("The program: a bare name, looked for where only the administrator installs, or an absolute path."),
  args: z.array(z.string()).optional().describe("Its arguments, each passed on exactly as it is."),
  cmd: z
    .string()
    .min(1)
    .optional()
    .describe(
      "Instead of command and args: one line, split into words as a POSIX shell does. Nothing is expanded; pipes and redirections need shell.",
    ),
  shell: z
    .boolean()
    .optional()
    .describe("Hand the line in cmd to the system's shell. Needs a policy with run_as_shell."),
  cwd: z.string().min(1).optional().describe("Working directory, absolute. Default: the home directory."),
  env: z
    .record(z.string(), z.string())
    .optional()
    .describe("Further environment variables, as far as the policy allows them."),
  stdin: z.string().optional().describe("Text for its standard input, which is empty otherwise."),
  stdin_base64: z.base64().optional().describe("Bytes for its standard input, instead of stdin."),
  timeout_secs: seconds().describe("Stop it after so many seconds, if the call's own deadline does not come first."),
  wait_secs: z
    .number()
    .min(0)
    .max(maxWaitSecs)
    .optional()
    .describe(
      "Answer after so many seconds even if it still runs: with a job_id for job.wait, job.output and job.kill.",
    ),
  idle_timeout_secs: seconds().describe("Stop it when it has printed nothing for so many seconds."),
  max_output_bytes: z
    .int()
    .min(0)
    .optional()
    .describe("Keep at most so many bytes of stdout and of stderr each, from the beginning and the end."),
});

/** A command resolved to what will be started. Nothing of it is looked up again. */
export interface Command {
  executable: string;
  /** What the caller called it. */
  name: string;
  args: readonly string[];
  /** Held until the command has ended; null: the home directory. */
  cwd: Target | null;
  env: Readonly<Record<string, string>>;
  stdin: Uint8Array | null;
  timeoutMs: number | null;
  idleTimeoutMs: number | null;
  maxOutputBytes: number | null;
  /** Not null: what still runs after so long becomes a job. */
  waitMs: number | null;
  accesses: readonly Access[];
  /** Why it cannot run although it may be asked for; told only to those whom policy lets ask. */
  obstacle: string | null;
}

export type ReadCommand = { kind: "command"; command: Command } | { kind: "invalid_args"; message: string };

const invalid = (message: string): ReadCommand => ({ kind: "invalid_args", message });

export async function readCommand(value: unknown, search: SearchOptions): Promise<ReadCommand> {
  const parsed = parseArgs(commandSchema, value);
  if (parsed.kind === "invalid_args") return parsed;
  const { args } = parsed;
  const zero = JSON.stringify(args).includes("\\u0000") ? fieldWithZero(args) : null;
  if (zero) return invalid(`${zero} holds a zero byte, which no command can be given`);
  if (args.stdin !== undefined && args.stdin_base64 !== undefined)
    return invalid("stdin and stdin_base64 exclude each other");
  const reserved = Object.keys(args.env ?? {}).find((name) => name.includes("=") || name === "");
  if (reserved !== undefined) return invalid(`env: ${quote(reserved)} is no name of a variable`);
  const words = wordsOf(args);
  if (words.kind === "invalid_args") return words;

  const found = await findExecutable(words.name, search);
  if (found.kind === "refused") return invalid(`command ${quote(words.name)} cannot be used: ${found.reason}`);
  const located = args.cwd === undefined ? null : await locate(args.cwd, { follow: true });
  if (located?.kind === "refused") return invalid(`cwd ${quote(args.cwd ?? "")} cannot be used: ${located.reason}`);
  const cwd = located?.target ?? null;

  const { line } = words;
  const accesses: Access[] = [
    line === null
      ? { kind: "command", executable: found.path, name: words.name, args: words.args }
      : { kind: "shell", line },
    ...Object.keys(args.env ?? {}).map((name) => ({ kind: "env", name }) as const),
    ...(cwd ? [{ kind: "path", mode: "read", path: cwd.path } as const] : []),
  ];
  const command: Command = {
    executable: found.path,
    name: words.name,
    args: words.args,
    cwd,
    env: args.env ?? {},
    stdin: args.stdin_base64 !== undefined ? Buffer.from(args.stdin_base64, "base64") : textBytes(args.stdin),
    timeoutMs: milliseconds(args.timeout_secs),
    idleTimeoutMs: milliseconds(args.idle_timeout_secs),
    maxOutputBytes: args.max_output_bytes ?? null,
    waitMs: milliseconds(args.wait_secs),
    accesses,
    obstacle: found.kind === "absent" ? found.why : cwdProblem(cwd, args.cwd ?? ""),
  };
  return { kind: "command", command };
}

type Args = z.infer<typeof commandSchema>;
type Words =
  | { kind: "words"; name: string; args: readonly string[] /** Not null: this goes to a shell. */; line: string | null }
  | { kind: "invalid_args"; message: string };

function wordsOf({ command, args, cmd, shell }: Args): Words {
  const refused = (message: string): Words => ({ kind: "invalid_args", message });
  if (command !== undefined && cmd !== undefined)
    return refused("command and cmd exclude each other: cmd is a whole line, command the program's name alone");
  if (command !== undefined) {
    if (shell) return refused("shell needs the line in cmd; command and args are started without a shell");
    return { kind: "words", name: command, args: args ?? [], line: null };
  }
  if (cmd === undefined) return refused("command is missing: name a program in command, or write a line in cmd");
  if (args !== undefined) return refused("args belong to command; cmd is a whole line");
  if (shell) return { kind: "words", ...shellFor(cmd), line: cmd };
  const split = splitWords(cmd);
  if (split.kind === "refused")
    return refused(`cmd ${quote(cmd)} cannot be split into words: ${split.reason}; set shell to true for a shell`);
  const [name, ...rest] = split.words;
  return name === undefined ? refused("cmd is empty") : { kind: "words", name, args: rest, line: null };
}

const shellFor = (line: string): { name: string; args: string[] } =>
  process.platform === "win32" ? { name: "cmd", args: ["/d", "/s", "/c", line] } : { name: "sh", args: ["-c", line] };

function cwdProblem(cwd: Target | null, asked: string): string | null {
  if (!cwd || cwd.kind === "directory") return null;
  return `cwd ${quote(asked)} ${cwd.obstacle === "ENOENT" ? "does not exist" : "is no directory that this host's user can enter"}`;
}

const textBytes = (text: string | undefined): Uint8Array | null => (text === undefined ? null : Buffer.from(text));

const milliseconds = (secs: number | undefined): number | null => (secs === undefined ? null : Math.ceil(secs * 1000));

/** The first field that a program could not receive whole. */
function fieldWithZero({ command, cmd, args, cwd, env }: Args): string | null {
  const strings = { command, cmd, cwd, args: args?.join(""), env: env && Object.entries(env).flat().join("") };
  return Object.entries(strings).find(([, text]) => text?.includes("\0"))?.[0] ?? null;
}
