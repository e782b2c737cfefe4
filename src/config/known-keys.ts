/** Keys that a schema does not know: what they are called, and what was probably meant. */
import type { z } from "zod";
import { nearest } from "../platform/nearest.ts";

type Path = readonly PropertyKey[];

export interface UnknownKey {
  path: Path;
  /** The known key it resembles. */
  meant: string | undefined;
}

/** Of every strict object in `schema`, whatever else is wrong with the document. */
export function unknownKeys(schema: z.ZodType, issues: readonly z.core.$ZodIssue[]): UnknownKey[] {
  return issues.flatMap((issue) =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => ({ path: [...issue.path, key], meant: nearest(key, keysAt(schema, issue.path)) }))
      : [],
  );
}

/** A copy of `document` without what stands at `paths`. */
export function without(document: unknown, paths: readonly Path[]): unknown {
  const copy: unknown = structuredClone(document);
  for (const path of paths) {
    let at = copy as Record<PropertyKey, unknown>;
    for (const part of path.slice(0, -1)) at = at[part] as Record<PropertyKey, unknown>;
    delete at[path.at(-1) ?? ""];
  }
  return copy;
}

interface Inside {
  type: string;
  innerType?: Schema;
  element?: Schema;
  valueType?: Schema;
  in?: Schema;
  shape?: Readonly<Record<string, Schema>>;
}
interface Schema {
  def: Inside;
}

function keysAt(schema: z.ZodType, path: Path): string[] {
  let at: Schema | undefined = schema as unknown as Schema;
  for (const part of path) {
    const { def } = bare(at);
    at = def.shape?.[String(part)] ?? def.element ?? def.valueType;
    if (!at) return [];
  }
  return Object.keys(bare(at).def.shape ?? {});
}

/** Without the wrappers that make a schema optional or give it a default. */
function bare(schema: Schema): Schema {
  let at = schema;
  for (let inner = at.def.innerType ?? at.def.in; inner; inner = at.def.innerType ?? at.def.in) at = inner;
  return at;
}
