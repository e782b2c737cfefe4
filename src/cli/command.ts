/** What a command is: its flags, one example, and what it does with them. A command is data; nothing runs until it is asked. */
import type { ArgDef, ArgsDef, CommandDef } from "citty";
import { defineCommand } from "citty";
import type { Environment } from "../platform/paths.ts";
import type { Terminal } from "./terminal.ts";

/** What every command gets besides its flags. */
export interface Surroundings {
  terminal: Terminal;
  env: Environment;
  /** The user's home directory, absolute. */
  home: string;
  /** Aborts on the first Ctrl-C or SIGTERM, and when whoever reads stdout is gone. A second Ctrl-C ends the process at once. */
  stop: AbortSignal;
}

type Value<D extends ArgDef> = D["type"] extends "boolean"
  ? boolean
  : D extends { required: false } | { type: "string" | "enum" }
    ? D extends { default: string } | { required: true }
      ? string
      : string | undefined
    : string;

/** Flags and arguments by name. Unlike citty's own type it knows no other names, and a missing one is undefined. */
export type Values<T extends ArgsDef> = { [K in keyof T]: Value<T[K]> };

export interface Given<T extends ArgsDef> extends Surroundings {
  args: Values<T>;
  /** Every value of a flag or argument that may be repeated, in order. */
  every(name: keyof T & string): string[];
  /** What stands after `--`, untouched. */
  rest: readonly string[];
}

export interface CommandSpec<T extends ArgsDef> {
  /** One line that works as it is typed, shown by --help. */
  example: string;
  /** What help says beyond the one line in the tree. */
  details?: string;
  /** How what follows `--` is called in help; without it nothing may follow. */
  rest?: string;
  args: T;
  /** A number is the exit status; nothing is 0. */
  run(given: Given<T>): Promise<number | undefined>;
}

export type Command = CommandDef & Pick<CommandSpec<ArgsDef>, "example" | "details" | "rest"> & { flags: ArgsDef };

/** How root hands a command what citty knows nothing of. */
export interface CommandData extends Surroundings {
  repeated: ReadonlyMap<string, string[]>;
  rest: readonly string[];
}

export function command<const T extends ArgsDef>(spec: CommandSpec<T>): Command {
  const { example, details, rest, args: flags } = spec;
  const citty = defineCommand({
    args: flags as ArgsDef,
    run({ args, data }) {
      const { repeated, rest, terminal, env, home, stop } = data as CommandData;
      const values: Record<string, unknown> = {};
      for (const [name, def] of Object.entries(flags))
        values[name] = def.type === "boolean" ? args[name] === true : args[name];
      const every = (name: string) => repeated.get(name) ?? [];
      return spec.run({ args: values as Values<T>, every, rest, terminal, env, home, stop });
    },
  });
  return {
    ...citty,
    flags,
    example,
    ...(details === undefined ? {} : { details }),
    ...(rest === undefined ? {} : { rest }),
  };
}

/** A hint that ends so marks what may be given several times. */
const repeatMark = "...";

/** A flag that may be repeated; `every(name)` has all of its values. */
export const many = <const H extends string>(hint: H, description: string) =>
  ({ type: "string", valueHint: `${hint}${repeatMark}`, description }) as const;

export const isRepeatable = (def: ArgDef): boolean => def.valueHint?.endsWith(repeatMark) ?? false;

/** A branch of the tree: a summary for help, and what lies below it. */
export interface Group {
  summary: string;
  commands: Readonly<Record<string, Group | Leaf>>;
}

/** A command that is not loaded yet. */
export interface Leaf {
  summary: string;
  load(): Promise<Command>;
}

export const group = (summary: string, commands: Group["commands"]): Group => ({ summary, commands });
export const leaf = (summary: string, load: () => Promise<{ default: Command }>): Leaf => ({
  summary,
  load: async () => (await load()).default,
});
