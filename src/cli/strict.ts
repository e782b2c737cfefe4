/** Refuses what citty would let pass or call no usage error: unknown and missing flags, misplaced values, stray arguments. */
import { parseArgs } from "node:util";
import type { ArgDef, ArgsDef } from "citty";
import { AegisError } from "../errors.ts";
import { nearest } from "../platform/nearest.ts";
import { type Command, isRepeatable } from "./command.ts";

export interface Checked {
  /** What citty may parse: everything before `--`. */
  before: string[];
  rest: string[];
  repeated: Map<string, string[]>;
}

const isPositional = (def: ArgDef): boolean => def.type === "positional";
const isText = (def: ArgDef): boolean => def.type === "string" || def.type === "enum";
const asList = (alias: string | string[] | undefined): string[] => (alias === undefined ? [] : [alias].flat());

/** How a flag is written: `--name`, or `--no-name` when it is on unless somebody says no. */
export const spelling = (name: string, def: ArgDef): string =>
  def.type === "boolean" && def.default === true ? `--no-${name}` : `--${name}`;

export const hintOf = (name: string, def: ArgDef): string => def.valueHint ?? name.replaceAll("-", "_").toUpperCase();

/** Whether the words ask for help; what follows `--` is somebody else's. */
export function asksForHelp(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  return (end < 0 ? argv : argv.slice(0, end)).some((word) => word === "--help" || word === "-h");
}

/** `path` is the command as typed, for the messages. */
export function check(argv: readonly string[], command: Command, path: string): Checked {
  const flags = command.flags;
  const usage = (message: string, hint = `${path} --help`) => new AegisError("usage", message, { hint });
  const byWord = new Map<string, { name: string; def: ArgDef }>();
  for (const [name, def] of Object.entries(flags)) {
    if (isPositional(def)) continue;
    byWord.set(spelling(name, def), { name, def });
    for (const alias of asList("alias" in def ? def.alias : undefined)) byWord.set(`-${alias}`, { name, def });
  }

  const end = argv.indexOf("--");
  const before = end < 0 ? [...argv] : argv.slice(0, end);
  const rest = end < 0 ? [] : argv.slice(end + 1);
  if (end >= 0 && command.rest === undefined) throw usage(`${path} takes nothing after --`);

  const repeated = new Map<string, string[]>();
  const seen = new Set<string>();
  const words: string[] = [];
  for (const token of tokensOf(before, flags)) {
    if (token.kind === "positional") words.push(token.value);
    if (token.kind !== "option") continue;
    const { rawName, value, inlineValue } = token;
    const known = byWord.get(rawName);
    if (!known) {
      const meant = nearest(
        rawName,
        [...byWord.keys(), "--help"].filter((word) => word.startsWith("--")),
      );
      throw usage(`unknown flag ${rawName}${meant ? `; did you mean ${meant}?` : ""}`);
    }
    const { name, def } = known;
    if (isText(def)) {
      const wanted = `${rawName} ${hintOf(name, def).replace(/\.\.\.$/, "")}`;
      if (value === undefined) throw usage(`${rawName} needs a value: ${wanted}`);
      if (!inlineValue && value.startsWith("-") && value !== "-")
        throw usage(
          `${rawName} needs a value, and ${value} looks like a flag`,
          `write ${rawName}=${value} if it is meant`,
        );
      if (def.type === "enum" && !def.options?.includes(value))
        throw notOneOf(rawName, value, def.options ?? [], usage);
      repeated.set(name, [...(repeated.get(name) ?? []), value]);
    } else if (value !== undefined) throw usage(`${rawName} takes no value`);
    if (seen.has(name) && !isRepeatable(def)) throw usage(`${rawName} is given twice`);
    seen.add(name);
  }
  for (const [name, def] of Object.entries(flags))
    if (!isPositional(def) && def.required === true && !seen.has(name))
      throw usage(`${spelling(name, def)} ${hintOf(name, def)} is missing`);
  checkPositionals();
  return { before, rest, repeated };

  function checkPositionals(): void {
    const defs = Object.entries(flags).filter(([, def]) => isPositional(def));
    let next = 0;
    for (const [name, def] of defs) {
      const values = isRepeatable(def) ? words.slice(next) : words.slice(next, next + 1);
      next += values.length;
      if (values.length === 0 && def.required !== false && def.default === undefined)
        throw usage(`${hintOf(name, def).replace(/\.\.\.$/, "")} is missing`);
      repeated.set(name, values);
    }
    const extra = words[next];
    if (extra === undefined) return;
    throw usage(
      `unexpected argument ${JSON.stringify(extra)}`,
      command.rest ? `put ${command.rest} after --: ${command.example}` : `${path} --help`,
    );
  }
}

function notOneOf(
  flag: string,
  value: string,
  options: readonly string[],
  usage: (message: string) => AegisError,
): AegisError {
  const meant = nearest(value, options);
  return usage(
    `${flag} ${JSON.stringify(value)} is not one of ${options.join(", ")}${meant ? `; did you mean ${meant}?` : ""}`,
  );
}

function tokensOf(words: string[], flags: ArgsDef) {
  const options: Record<string, { type: "string" | "boolean"; short?: string; multiple: true }> = {};
  for (const [name, def] of Object.entries(flags)) {
    if (isPositional(def)) continue;
    const short = asList("alias" in def ? def.alias : undefined).find((alias) => alias.length === 1);
    options[name] = { type: isText(def) ? "string" : "boolean", multiple: true, ...(short ? { short } : {}) };
  }
  return parseArgs({ args: words, options, strict: false, allowPositionals: true, tokens: true }).tokens;
}
