/** What an MCP server says it offers, checked and bounded, and remembered so that it need not be asked at each start. */
import { readFile } from "node:fs/promises";
import { z } from "zod";

/** Most tools of one server. */
const maxTools = 200;
/** Longest description, in characters, and longest schema of arguments, as JSON. */
const maxDescriptionChars = 4_000;
const maxSchemaChars = 32 * 1024;

const listedTool = z.object({
  name: z
    .string()
    .regex(/^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/)
    .max(128),
  description: z.string().default(""),
  inputSchema: z.record(z.string(), z.unknown()).default({ type: "object" }),
  annotations: z.object({ readOnlyHint: z.boolean().optional(), destructiveHint: z.boolean().optional() }).default({}),
});

export interface ListedTool {
  name: string;
  description: string;
  inputSchema: Record<string, unknown>;
  readOnly: boolean;
  destructive: boolean;
}

/** Passes over, by name, what cannot be offered: names that a policy could not name, and what is too much. */
export function readListing(listed: readonly unknown[]): { known: ListedTool[]; passedOver: string[] } {
  const known: ListedTool[] = [];
  const passedOver: string[] = [];
  for (const one of listed) {
    const parsed = listedTool.safeParse(one);
    const name = String((one as { name?: unknown } | null)?.name ?? "").slice(0, 128);
    const isTooMuch = known.length >= maxTools || known.some((other) => other.name === name);
    if (!parsed.success || isTooMuch || JSON.stringify(parsed.data.inputSchema).length > maxSchemaChars) {
      passedOver.push(name);
      continue;
    }
    const { annotations, description, inputSchema } = parsed.data;
    // Nothing said means that it may change things.
    const readOnly = annotations.readOnlyHint === true;
    const destructive = !readOnly && annotations.destructiveHint !== false;
    known.push({ name, description: description.slice(0, maxDescriptionChars), inputSchema, readOnly, destructive });
  }
  return { known, passedOver };
}

const remembered = z.object({
  digest: z.string(),
  tools: z
    .array(
      z.object({
        name: z.string(),
        description: z.string(),
        inputSchema: z.record(z.string(), z.unknown()),
        readOnly: z.boolean(),
        destructive: z.boolean(),
      }),
    )
    .max(maxTools),
});

/** Null when nothing is remembered, or it is of other settings. */
export async function readListed(path: string, digest: string): Promise<ListedTool[] | null> {
  const text = await readFile(path, "utf8").catch(() => "null");
  try {
    const parsed = remembered.safeParse(JSON.parse(text));
    return parsed.success && parsed.data.digest === digest ? parsed.data.tools : null;
  } catch {
    return null;
  }
}
