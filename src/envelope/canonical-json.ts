/** Arguments are signed as text and used as a value: only text that has exactly one reading is accepted. */

export const maxArgsDepth = 64;

export type ParsedArgs =
  | { kind: "args"; value: unknown }
  | { kind: "refused"; reason: "not_utf8" | "not_json" | "not_canonical" | "too_deep" | "proto_key" };

/**
 * Refuses duplicate keys, numbers that lose digits, -0, white space and any other text that JSON.stringify would not
 * write back unchanged; and `__proto__` as a key, which would pass that test.
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
function inspect(value: unknown): "too_deep" | "proto_key" | null {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > maxArgsDepth) return "too_deep";
    const next: unknown[] = [];
    for (const item of level) {
      if (typeof item !== "object" || item === null) continue;
      if (Object.hasOwn(item, "__proto__")) return "proto_key";
      for (const child of Object.values(item)) next.push(child);
    }
    level = next;
  }
  return null;
}
