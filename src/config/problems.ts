/** What a schema found wrong, as lines that a person can act on: where, what was expected, what is there. */
import type { z } from "zod";

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

/** `spec.cluster.controller.endpoint`, with positions in lists in brackets. */
export function pathText(path: Path): string {
  let text = "";
  for (const part of path)
    text += typeof part === "number" ? `[${part}]` : text === "" ? String(part) : `.${String(part)}`;
  return text || "the document";
}

/** One line for each problem in `document`; `where` may put a file's name before the path. */
export function inWords(
  issues: readonly Issue[],
  document: unknown,
  where: (path: Path) => string = pathText,
): string[] {
  return issues.flatMap((issue) => {
    if (issue.code === "unrecognized_keys")
      return issue.keys.map((key) => `${where([...issue.path, key])}: unknown key`);
    return [`${where(issue.path)}: ${expectation(issue)}, found ${found(valueAt(document, issue.path))}`];
  });
}

const types: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "a mapping",
  record: "a mapping",
};

const formats: Readonly<Record<string, string>> = {
  uuid: "a UUID",
  datetime: "a time such as 2026-01-31T00:00:00Z",
  url: "a URL",
};

function expectation(issue: Issue): string {
  switch (issue.code) {
    case "invalid_type":
      return `expected ${types[issue.expected] ?? issue.expected}`;
    case "invalid_value":
      return `expected ${issue.values.map(String).join(" or ")}`;
    case "invalid_format":
      return formats[issue.format] ? `expected ${formats[issue.format]}` : issue.message;
    case "too_small":
      return `expected at least ${issue.minimum}${unit(issue.origin)}`;
    case "too_big":
      return `expected at most ${issue.maximum}${unit(issue.origin)}`;
    case "invalid_union":
      return [...new Set(issue.errors.flat().map(expectation))].join(" or ").replaceAll(" or expected ", " or ");
    default:
      return issue.message;
  }
}

const unit = (origin: string): string => (origin === "string" ? " characters" : origin === "array" ? " entries" : "");

/** Longest part of a value that is shown. */
const shownChars = 60;

function found(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object" && value !== null) return "a mapping";
  const text = JSON.stringify(value);
  return text.length > shownChars ? `${text.slice(0, shownChars)}...` : text;
}

export function valueAt(document: unknown, path: Path): unknown {
  let at = document;
  for (const part of path) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, part)) return undefined;
    at = (at as Record<PropertyKey, unknown>)[part];
  }
  return at;
}
