/** Turns a caller's arguments into typed values, or into one sentence that names the field and what was expected. */
import { z } from "zod";
import { nearest } from "../platform/nearest.ts";
import { quote } from "../policy/quote.ts";

export type ParsedArgs<T> = { kind: "args"; args: T } | { kind: "invalid_args"; message: string };

type ObjectSchema<T> = z.ZodType<T> & { shape: Readonly<Record<string, unknown>> };

/** `schema` is strict: a field it does not have is refused by name. All problems are told at once. */
export function parseArgs<T>(schema: ObjectSchema<T>, value: unknown): ParsedArgs<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return { kind: "args", args: parsed.data };
  const known = Object.keys(schema.shape);
  return { kind: "invalid_args", message: parsed.error.issues.map((issue) => inWords(issue, value, known)).join("; ") };
}

/** The same schema as callers see it. */
export function inputSchema(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: "input" }) as Record<string, unknown>;
  return rest;
}

type Issue = z.core.$ZodIssue;

function inWords(issue: Issue, value: unknown, known: readonly string[]): string {
  const field = issue.path.reduce<string>(
    (text, part) =>
      typeof part === "number" ? `${text}[${part}]` : text === "" ? String(part) : `${text}.${String(part)}`,
    "",
  );
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => unknownField(field, key, field === "" ? known : [])).join("; ");
  const there = issue.path.reduce<unknown>(
    (at, part) => (at as Record<PropertyKey, unknown> | undefined)?.[part],
    value,
  );
  const name = field === "" ? "the arguments" : quoteField(field);
  if (issue.code === "custom") return `${name}: ${issue.message}`;
  return there === undefined
    ? `${name} is missing: expected ${expected(issue)}`
    : `${name}: expected ${expected(issue)}, got ${typeOf(there)}`;
}

function unknownField(within: string, key: string, known: readonly string[]): string {
  const meant = nearest(key, known);
  const place = within === "" ? "" : ` in ${quoteField(within)}`;
  return `unknown field ${quote(key)}${place}${meant === undefined ? "" : `; did you mean ${meant}?`}`;
}

const quoteField = (field: string): string => (/^[\w.[\]]+$/.test(field) ? field : quote(field));

const types: Readonly<Record<string, string>> = {
  int: "an integer",
  number: "a number",
  string: "a string",
  boolean: "true or false",
  array: "an array",
  object: "an object",
  record: "an object",
};

function expected(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return types[issue.expected] ?? issue.expected;
    case "invalid_value":
      return issue.values.map((value) => JSON.stringify(value)).join(" or ");
    case "too_small":
      return `${issue.inclusive ? "at least" : "more than"} ${issue.minimum}${unit(issue.origin)}`;
    case "too_big":
      return `${issue.inclusive ? "at most" : "less than"} ${issue.maximum}${unit(issue.origin)}`;
    case "invalid_union":
      return [...new Set(issue.errors.flat().map(expected))].join(" or ");
    default:
      return issue.message;
  }
}

const unit = (origin: string): string => (origin === "string" ? " characters" : origin === "array" ? " entries" : "");

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object") return "an object";
  if (typeof value === "string") return value.length > 40 ? `a string of ${value.length} characters` : quote(value);
  return String(value);
}
