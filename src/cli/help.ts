/** What --help prints: one screen, one example. */
import type { ArgDef } from "citty";
import type { Command, Group } from "./command.ts";
import { hintOf, spelling } from "./strict.ts";

const indent = (rows: readonly (readonly [string, string])[]): string[] => {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`.trimEnd());
};

export function groupHelp(path: string, group: Group): string {
  const rows = Object.entries(group.commands).map(([name, node]) => [name, node.summary] as const);
  const footer = path === "aegis" ? ["", "  --version  the version of this executable"] : [];
  return [
    group.summary,
    "",
    `usage: ${path} COMMAND`,
    "",
    ...indent(rows),
    ...footer,
    "",
    `${path} COMMAND --help says more about one of them.`,
    "",
  ].join("\n");
}

export function commandHelp(path: string, summary: string, command: Command): string {
  const all = Object.entries(command.flags);
  const positionals = all.filter(([, def]) => def.type === "positional");
  const flags = all.filter(([, def]) => def.type !== "positional");
  const words = positionals.map(([name, def]) =>
    def.required === false ? `[${hintOf(name, def)}]` : hintOf(name, def),
  );
  const usage = ["usage:", path, ...(flags.length > 0 ? ["[FLAGS]"] : []), ...words];
  if (command.rest) usage.push("--", command.rest);
  const lines = [summary, "", usage.join(" ")];
  if (command.details) lines.push("", command.details);
  if (positionals.length > 0)
    lines.push("", ...indent(positionals.map(([name, def]) => [hintOf(name, def), describe(def)] as const)));
  const rows = flags.map(([name, def]) => [flagWords(name, def), describe(def)] as const);
  lines.push("", ...indent([...rows, ["-h, --help", "this text"]]), "", "example:", `  ${command.example}`, "");
  return lines.join("\n");
}

function flagWords(name: string, def: ArgDef): string {
  const alias = "alias" in def && def.alias !== undefined ? [def.alias].flat().map((one) => `-${one}, `) : [];
  const options = def.type === "enum" ? def.options?.join("|") : undefined;
  const value = def.type === "boolean" ? "" : ` ${options ?? hintOf(name, def)}`;
  return `${alias.join("")}${spelling(name, def)}${value}`;
}

function describe(def: ArgDef): string {
  const text = (def.type === "boolean" && def.negativeDescription) || (def.description ?? "");
  const fallback = def.type !== "boolean" && def.default !== undefined ? ` (default ${def.default})` : "";
  return `${text}${def.required === true && def.type !== "positional" ? " (required)" : ""}${fallback}`;
}
