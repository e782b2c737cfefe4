/** Flags that several commands share, and how their texts become values. */
import { parseDuration } from "../config/duration.ts";
import { AegisError } from "../errors.ts";
import { defaultControllerDir, defaultEdgeDir, type Environment, resolveFrom } from "../platform/paths.ts";
import type { Surroundings } from "./command.ts";

const outputFormats = ["table", "json", "yaml"] as const;
export type OutputFormat = (typeof outputFormats)[number];

export const outputFlag = {
  type: "enum",
  alias: "o",
  options: [...outputFormats] as string[],
  description: "how the result is printed; AEGIS_OUTPUT sets the default",
} as const;

export const dataDirFlag = {
  type: "string",
  valueHint: "DIR",
  description: "the controller's data (default ~/.aegis/controller)",
} as const;

export const stateDirFlag = {
  type: "string",
  valueHint: "DIR",
  description: "the edge's state (default ~/.aegis/edge)",
} as const;

export const configFlag = {
  type: "string",
  valueHint: "FILE",
  description: "the edge's settings (default aegis-config.yaml in the state directory; AEGIS_CONFIG)",
} as const;

/** The flag, else AEGIS_OUTPUT, else a table. */
export function outputFormat(flag: string | undefined, env: Environment): OutputFormat {
  const text = flag ?? (env.AEGIS_OUTPUT || "table");
  const found = outputFormats.find((format) => format === text);
  if (found) return found;
  throw new AegisError("usage", `AEGIS_OUTPUT ${JSON.stringify(text)} is not one of ${outputFormats.join(", ")}`, {
    hint: "export AEGIS_OUTPUT=json",
  });
}

/** Prints a result: `value` for programs, `text` for people. */
export async function printResult(
  { terminal, env }: Pick<Surroundings, "terminal" | "env">,
  flag: string | undefined,
  value: unknown,
  text: () => string,
): Promise<void> {
  switch (outputFormat(flag, env)) {
    case "table":
      return await terminal.data(text());
    case "json":
      return await terminal.data(`${JSON.stringify(value, null, 2)}\n`);
    case "yaml": {
      const { stringifyYAML } = await import("confbox/yaml");
      // What JSON would say, so that the two never differ.
      return await terminal.data(stringifyYAML(JSON.parse(JSON.stringify(value))));
    }
  }
}

type Place = Pick<Surroundings, "env" | "home">;

export const controllerDir = (flag: string | undefined, { env, home }: Place): string =>
  flag ? resolveFrom(process.cwd(), flag, home) : defaultControllerDir(env, home);

export const edgeDir = (flag: string | undefined, { env, home }: Place): string =>
  flag ? resolveFrom(process.cwd(), flag, home) : defaultEdgeDir(env, home);

/** The flag, else AEGIS_CONFIG; nothing means the file in the state directory. */
export function configFile(flag: string | undefined, { env, home }: Place): { configPath?: string } {
  const text = flag ?? env.AEGIS_CONFIG;
  return text ? { configPath: resolveFrom(process.cwd(), text, home) } : {};
}

/** A whole number within bounds. */
export function wholeNumber(flag: string, text: string, min: number, max: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new AegisError("usage", `${flag} ${JSON.stringify(text)} is not a whole number from ${min} to ${max}`);
}

export const port = (flag: string, text: string): number => wholeNumber(flag, text, 0, 65_535);

/** A duration in milliseconds; the error names the flag. */
export function duration(flag: string, text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    const { code, message, hint } = AegisError.from(error);
    throw new AegisError(code, `${flag}: ${message}`, hint === undefined ? {} : { hint });
  }
}

/** `k=v` texts as a record without inheritance; the value may hold more `=`. */
export function pairs(flag: string, texts: readonly string[]): Record<string, string> {
  const record: Record<string, string> = Object.create(null);
  for (const text of texts) {
    const at = text.indexOf("=");
    const key = text.slice(0, at);
    if (at < 1) throw new AegisError("usage", `${flag} ${JSON.stringify(text)} is not NAME=VALUE`);
    if (key in record) throw new AegisError("usage", `${flag} names ${key} twice`);
    record[key] = text.slice(at + 1);
  }
  return record;
}
