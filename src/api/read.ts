/** Reads what arrived from outside with a schema: other names are put right first, and every problem is told by its path. */
import { z } from "zod";
import { AegisError } from "../errors.ts";
import { nearest } from "../platform/nearest.ts";

export interface Problem {
  /** `policy.batch`; empty for the whole. */
  path: string;
  message: string;
}

export type Reading<T> = { kind: "value"; value: T } | { kind: "problems"; problems: readonly Problem[] };

/** Other names that a field of an object also goes by, such as those of the Rust peer: other name -> ours. */
const aliases = z.registry<{ aliases: Readonly<Record<string, string>> }>();

/** `schema`, whose fields may also be called as `others` says: other name -> ours, or -> `ours.inner` for one inside. */
export function withAliases<T extends z.ZodObject>(schema: T, others: Readonly<Record<string, string>>): T {
  aliases.add(schema, { aliases: others });
  return schema;
}

export function readValue<T>(schema: z.ZodType<T>, value: unknown): Reading<T> {
  const problems: Problem[] = [];
  const outcome = schema.safeParse(renamed(schema, value, "", problems));
  if (problems.length > 0) return { kind: "problems", problems };
  if (outcome.success) return { kind: "value", value: outcome.data };
  return {
    kind: "problems",
    problems: withoutEchoes(outcome.error.issues).flatMap((issue) => explain(issue, value, schema)),
  };
}

/** The value, or an `invalid_request` that names every problem. `what` is named first. */
export function readRequest<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const reading = readValue(schema, value);
  if (reading.kind === "value") return reading.value;
  const words = reading.problems.map(({ path, message }) => (path ? `${path}: ${message}` : message));
  throw new AegisError("invalid_request", `${what}: ${words.slice(0, 20).join("; ")}`, {
    hint: "the API's description is at /openapi.json",
  });
}

type Schema = z.core.$ZodType;

/** What is inside `.optional()`, `.nullable()`, `.default()`. */
function bare(schema: Schema): Schema {
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault
  )
    return bare(schema.unwrap());
  return schema;
}

function renamed(schema: Schema, value: unknown, path: string, problems: Problem[]): unknown {
  const object = bare(schema);
  if (!(object instanceof z.ZodObject) || typeof value !== "object" || value === null || Array.isArray(value))
    return value;
  const names = aliases.get(object)?.aliases ?? {};
  const out = new Map<string, unknown>();
  /** Fields that belong into one of ours, such as `policy.mode`. */
  const inner = new Map<string, Record<string, unknown>>();
  for (const [given, content] of Object.entries(value)) {
    const name = Object.hasOwn(names, given) ? (names[given] ?? given) : given;
    const where = path ? `${path}.${given}` : given;
    const [key = name, field] = name.split(".");
    const taken = field === undefined ? out.has(key) : Object.hasOwn(inner.get(key) ?? {}, field);
    if (taken) problems.push({ path: where, message: `is another name of ${name}; give one of them` });
    else if (field !== undefined) inner.set(key, { ...inner.get(key), [field]: content });
    else out.set(key, content);
  }
  for (const [key, fields] of inner) {
    const whole = out.get(key) ?? {};
    const both = typeof whole === "object" && Object.keys(fields).find((field) => Object.hasOwn(whole, field));
    if (both) problems.push({ path: both, message: `is given twice: here and in ${key}` });
    out.set(key, { ...(whole as object), ...fields });
  }
  const shape = object.shape as Record<string, Schema | undefined>;
  const entries = [...out].map(([key, content]) => {
    const field = Object.hasOwn(shape, key) ? shape[key] : undefined;
    return [key, field ? renamed(field, content, path ? `${path}.${key}` : key, problems) : content];
  });
  return Object.fromEntries(entries);
}

/** Where a field is misspelt, what is wrong without it is not worth saying. */
function withoutEchoes<I extends z.core.$ZodIssue>(issues: readonly I[]): I[] {
  const misspelt = new Set(issues.filter(({ code }) => code === "unrecognized_keys").map(({ path }) => at(path)));
  return issues.filter(({ code, path }) => code !== "custom" || !misspelt.has(at(path)));
}

const at = (path: readonly PropertyKey[]): string =>
  path.reduce<string>(
    (text, part) => (typeof part === "number" ? `${text}[${part}]` : text ? `${text}.${String(part)}` : String(part)),
    "",
  );

function explain(issue: z.core.$ZodIssue, input: unknown, schema: Schema): Problem[] {
  if (issue.code === "unrecognized_keys") {
    const known = fieldsAt(schema, issue.path);
    return issue.keys.map((key) => {
      const meant = nearest(key, known);
      return { path: at([...issue.path, key]), message: `unknown field${meant ? `; did you mean ${meant}?` : ""}` };
    });
  }
  if (issue.code === "invalid_union") {
    // Where one alternative was clearly meant, its own problems say more than "no alternative fits".
    const value = issue.path.reduce<unknown>((inner, part) => (inner as Record<PropertyKey, unknown>)?.[part], input);
    const meant = issue.errors.find((problems) => {
      const key = problems[0]?.path[0];
      return (
        key !== undefined &&
        typeof value === "object" &&
        value !== null &&
        Object.keys(value).length === 1 &&
        Object.hasOwn(value, key)
      );
    });
    if (meant)
      return withoutEchoes(meant).flatMap((inner) =>
        explain({ ...inner, path: [...issue.path, ...inner.path] } as typeof inner, input, schema),
      );
  }
  return [{ path: at(issue.path), message: issue.message }];
}

function fieldsAt(schema: Schema, path: readonly PropertyKey[]): string[] {
  let at = bare(schema);
  for (const part of path) {
    const next = at instanceof z.ZodObject ? (at.shape[String(part)] as Schema | undefined) : undefined;
    if (!next) return [];
    at = bare(next);
  }
  return at instanceof z.ZodObject ? Object.keys(at.shape) : [];
}
