/** Arguments are signed as text and used as a value: only text that has exactly one reading is accepted. */

/** Objects and lists within one another. */
export const maxArgsDepth = 64;

export type ParsedArgs =
  | { kind: "args"; value: unknown }
  | { kind: "refused"; reason: "not_utf8" | "not_json" | "not_canonical" | Oddity };

type Oddity = "too_deep" | "proto_key" | "lone_surrogate";

/**
 * Refuses duplicate keys, numbers that lose digits, -0, white space and any other text that JSON.stringify would not
 * write back unchanged; and what would pass that test: `__proto__` as a key, and half a character, which turns into
 * another one as soon as it leaves for a file or a process.
 */
export function parseArgs(bytes: Uint8Array): ParsedArgs {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return { kind: "refused", reason: "not_utf8" };
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { kind: "refused", reason: "not_json" };
  }
  const shape = inspect(value);
  if (shape) return { kind: "refused", reason: shape };
  return JSON.stringify(value) === text ? { kind: "args", value } : { kind: "refused", reason: "not_canonical" };
}

/** Walks level by level, so that depth costs no stack. */
function inspect(value: unknown): Oddity | null {
  let level: unknown[] = [value];
  for (let depth = 1; level.length > 0; depth++) {
    const next: unknown[] = [];
    for (const item of level) {
      if (typeof item === "string" && !item.isWellFormed()) return "lone_surrogate";
      if (typeof item !== "object" || item === null) continue;
      if (depth > maxArgsDepth) return "too_deep";
      if (Object.hasOwn(item, "__proto__")) return "proto_key";
      if (!Array.isArray(item) && !Object.keys(item).every((key) => key.isWellFormed())) return "lone_surrogate";
      for (const child of Object.values(item)) next.push(child);
    }
    level = next;
  }
  return null;
}
