/** Puts the tables of one bench into BENCHMARKS.md, in their place and with the machine they come from. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { markdown, type Table } from "./bench.ts";

const file = join(import.meta.dir, "../../BENCHMARKS.md");

/** The text between the two comments of `name` becomes these tables. Throws when the comments are not there. */
export function withResults(text: string, name: string, tables: readonly Table[], from: string): string {
  const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const [start, stop] = [text.indexOf(begin), text.indexOf(end)];
  if (start < 0 || stop < start) throw new Error(`BENCHMARKS.md has no place for ${name}: ${begin} ... ${end}`);
  const shown = `${tables.map(markdown).join("\n")}\n${from}`;
  return `${text.slice(0, start + begin.length)}\n\n${shown}\n\n${text.slice(stop)}`;
}

export function writeResults(name: string, tables: readonly Table[], machine: string): void {
  const from = `*${new Date().toISOString().slice(0, 10)}, ${machine}*`;
  writeFileSync(file, withResults(readFileSync(file, "utf8"), name, tables, from));
}
