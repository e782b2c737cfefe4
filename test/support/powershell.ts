/** What can be said of a PowerShell script without PowerShell: whether it parses, and which commands it calls. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Language, type Node, Parser } from "web-tree-sitter";

const modules = join(import.meta.dir, "../../node_modules");

export interface Script {
  /** `line:column what`, for each place that does not parse. */
  errors: string[];
  /** Names of commands called, once each, in the order they appear. */
  commands: string[];
  /** The words of each call, its name first. */
  calls: string[][];
}

export async function readPowerShell(text: string): Promise<Script> {
  await Parser.init();
  const grammar = readFileSync(join(modules, "tree-sitter-powershell/tree-sitter-powershell.wasm"));
  const parser = new Parser();
  parser.setLanguage(await Language.load(grammar));
  const script: Script = { errors: [], commands: [], calls: [] };
  const visit = (node: Node) => {
    const { row, column } = node.startPosition;
    if (node.isError || node.isMissing)
      script.errors.push(`${row + 1}:${column + 1} ${node.isMissing ? `missing ${node.type}` : "error"}`);
    if (node.type === "command_name" && !script.commands.includes(node.text)) script.commands.push(node.text);
    if (node.type === "command") script.calls.push(node.text.split(/\s+/));
    for (const child of node.children) if (child) visit(child);
  };
  const tree = parser.parse(text);
  if (!tree) throw new Error("the parser gave no tree");
  visit(tree.rootNode);
  return script;
}
