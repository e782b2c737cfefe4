/** Which commands, arguments and variables a rule stands for. Grants are read narrowly, denials widely. */
import { expandHome } from "../platform/paths.ts";
import type { Access } from "./access.ts";
import { matchesText } from "./match.ts";
import { type PathWorld, styleOf } from "./path-rules.ts";
import { quote } from "./quote.ts";

type Command = Extract<Access, { kind: "command" }>;

/**
 * `*` grants every executable, an absolute path the resolved executable of that path, and a bare name what the caller
 * wrote as that bare name, so that the fixed PATH has chosen the file. A caller's absolute path passes no bare name.
 */
export function grantsCommand(entry: string, command: Command, world: PathWorld): boolean {
  if (entry === "*") return true;
  if (isBare(entry)) return entry === command.name;
  const wanted = expandHome(entry, world.home);
  if (styleOf(world) === "posix") return wanted === command.executable;
  const plain = (path: string) => path.replaceAll("/", "\\").toLowerCase();
  return plain(wanted) === plain(command.executable);
}

/** A rule that narrows holds under every name the command goes by. */
export const narrowsCommand = (key: string, { name, executable }: Command): boolean =>
  [name, executable, baseName(name), baseName(executable)].includes(key) ||
  [programName(name), programName(executable)].includes(programName(key));

/** Whether `args` begin with the words of `entry`, each word one argument. */
export const beginsWith = (entry: string, args: readonly string[]): boolean =>
  entry.split(" ").every((word, index) => args[index] === word);

/**
 * An option is denied in every spelling that parsers take for it: `-s` also inside a bundle (`-us`) and with its value
 * (`-s2030`); `--set` also as `--set=x`, shortened (`--se`) and with one dash. Any other rule, `*` included, is compared
 * with the argument and with what stands on either side of its first `=`.
 */
export function deniesArgument(rule: string, argument: string): boolean {
  const equals = argument.indexOf("=");
  const option = equals < 0 ? argument : argument.slice(0, equals);
  const readings = equals < 0 ? [argument] : [argument, option, argument.slice(equals + 1)];
  if (readings.some((reading) => matchesText(rule, reading))) return true;
  if (/^-[^-]$/u.test(rule)) return /^-[^-]/.test(argument) && argument.includes(rule.slice(1), 1);
  const [, word] = /^--?([^-*][^*]+)$/s.exec(rule) ?? [];
  if (word === undefined) return false;
  return option === `-${word}` || (/^--./s.test(option) && word.startsWith(option.slice(2)));
}

/** Whether this is a shell. Other programs start programs too: this keeps honest what `run_as_shell` says, no more. */
export function isShell({ name, executable }: Command): boolean {
  const called = programName(name);
  const real = programName(executable);
  // One file, many programs: the name it is called by says which one runs.
  const program = manyInOne.has(real) ? [called] : [called, real];
  return program.some((one) => shells.has(one) || manyInOne.has(one));
}

const shells = new Set(
  `sh ash bash rbash dash zsh rzsh ksh mksh lksh pdksh oksh yash posh csh tcsh fish elvish nu xonsh rc es
   pwsh powershell powershell_ise cmd command wsl`.split(/\s+/),
);
const manyInOne = new Set(["busybox", "toybox"]);

/**
 * Never set by a caller, whatever `env_allowlist` says: they decide which files a process loads or starts, or speak to
 * this program itself.
 */
const neverSet =
  /^(?:PATH|PATHEXT|COMSPEC|LD_.*|DYLD_.*|BUN_.*|NODE_.*|GIT_.*|AEGIS_.*|BASH_ENV|BASH_FUNC_.*|BASHOPTS|SHELLOPTS|ENV|IFS|PS4|GCONV_PATH|GLIBC_TUNABLES)$/;

/** Why a caller may not set `name`, or null. */
export function envProblem(allowlist: readonly string[], name: string): string | null {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return `${quote(name)} is no name of a variable`;
  if (neverSet.test(name.toUpperCase())) return `no caller may set the variable ${name}, whatever env_allowlist says`;
  return allowlist.some((entry) => matchesText(entry, name)) ? null : `env_allowlist does not hold ${name}`;
}

/** What is wrong with an entry of `command_allowlist` or a key of `subcommand_allowlist`, or null. */
export function commandEntryProblem(entry: string): string | null {
  if (entry === "*" || /^(?:~[/\\]|\/|[A-Za-z]:[\\/])[^*?\0]+$/s.test(entry)) return null;
  if (entry !== "" && isBare(entry) && !/[\s*?~\0]/.test(entry)) return null;
  return 'expected a bare name, the absolute path of a resolved executable, or "*"; arguments belong into args_allowlist or subcommand_allowlist';
}

const isBare = (entry: string): boolean => !/[/\\]/.test(entry);

const baseName = (path: string): string => path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);

/** `/usr/bin/zsh-5.9` is zsh and `Bash.EXE` is bash. */
const programName = (path: string): string =>
  baseName(path)
    .toLowerCase()
    .replace(/\.exe$/, "")
    .replace(/^-/, "")
    .replace(/[-.\d]+$/, "");
