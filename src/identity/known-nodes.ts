/**
 * The hosts an operator signs for, each with the key it was first met with: `~/.aegis/known_nodes`. One line a host:
 * node id, key, tenant, name. Controllers have no say in it.
 */
import { join } from "node:path";
import { importPublicKey, type PublicKey } from "../envelope/public-key.ts";
import { uuidBytes } from "../envelope/statement.ts";
import { AegisError } from "../errors.ts";
import { aegisHome } from "../platform/paths.ts";
import { makeDirectory, writeFileAtomic } from "../platform/private-file.ts";
import { readTextFile } from "../platform/text-file.ts";
import { publicKeyText } from "./operator-key.ts";
import type { OperatorPlace } from "./operator-key-path.ts";

export interface KnownNode {
  nodeId: string;
  key: PublicKey;
  tenant: string;
  /** What the host called itself when it was written down. */
  name: string;
}

export const knownNodesPath = ({ env, home }: OperatorPlace): string => join(aegisHome(env, home), "known_nodes");

/** By node id. Throws `config_invalid`, naming the line, for a file that cannot be read as a whole: none is passed over. */
export async function loadKnownNodes(place: OperatorPlace): Promise<Map<string, KnownNode>> {
  const path = knownNodesPath(place);
  const known = new Map<string, KnownNode>();
  for (const [index, line] of ((await readTextFile(path)) ?? "").split("\n").entries()) {
    if (/^\s*(?:#|$)/.test(line)) continue;
    const node = readLine(line);
    const problem = !node ? "is no known host" : known.has(node.nodeId) ? "names a host for the second time" : null;
    if (node && !problem) known.set(node.nodeId, node);
    else
      throw new AegisError("config_invalid", `${path}: line ${index + 1} ${problem}`, {
        hint: "remove the line; a host says its own with: aegis edge status -o json",
      });
  }
  return known;
}

/** Adds hosts below what is there. */
export async function addKnownNodes(place: OperatorPlace, nodes: readonly KnownNode[]): Promise<void> {
  const path = knownNodesPath(place);
  const before = (await readTextFile(path)) ?? "";
  const joined = before === "" || before.endsWith("\n") ? before : `${before}\n`;
  await makeDirectory(aegisHome(place.env, place.home));
  await writeFileAtomic(path, `${joined}${nodes.map((node) => `${knownNodeLine(node)}\n`).join("")}`);
}

/** Writes another key for a host that is there. */
export async function changeKnownNode(place: OperatorPlace, node: KnownNode): Promise<void> {
  const path = knownNodesPath(place);
  const lines = ((await readTextFile(path)) ?? "").split("\n");
  const isIts = (line: string) => !line.trimStart().startsWith("#") && readLine(line)?.nodeId === node.nodeId;
  await writeFileAtomic(path, lines.map((line) => (isIts(line) ? knownNodeLine(node) : line)).join("\n"));
}

/** The name comes last, in quotes where it would not be read back as it is. */
export const knownNodeLine = ({ nodeId, key, tenant, name }: KnownNode): string =>
  `${nodeId} ${publicKeyText(key)} ${tenant} ${/^[\w.-]+$/.test(name) ? name : asciiJson(name)}`;

function readLine(line: string): KnownNode | null {
  const [, nodeId = "", keyText = "", tenant = "", nameText = ""] =
    /^\s*(\S+)\s+ed25519:([A-Za-z0-9_-]{43})\s+(\S+)\s+(\S|\S.*\S)\s*$/.exec(line) ?? [];
  const key = importPublicKey(Buffer.from(keyText, "base64url"));
  const name = nameText.startsWith('"') ? unquoted(nameText) : nameText;
  return key && name !== null && uuidBytes(nodeId) ? { nodeId, key, tenant, name } : null;
}

function unquoted(text: string): string | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "string" ? value : null;
  } catch {
    return null;
  }
}

const asciiJson = (text: string): string =>
  JSON.stringify(text).replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
