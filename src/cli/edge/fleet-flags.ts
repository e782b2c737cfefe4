/** The flags that say what a fleet run does, and the request they make. */
import { parseTarget } from "../../api/target-text.ts";
import type { InvokeRequest } from "../../api/types.ts";
import { AegisError } from "../../errors.ts";
import { many } from "../command.ts";
import { duration, pairs, wholeNumber } from "../options.ts";

export const targetFlag = {
  type: "string",
  valueHint: "EXPR",
  required: true,
  description: "@NODE, group:NAME, all, or what hosts must be: 'os=linux tags=prod labels=region=eu'",
} as const;

export const contextFlag = {
  type: "string",
  valueHint: "NAME",
  default: "default",
  description: "the security context of the host to run under",
} as const;

export const fleetRunFlags = {
  target: targetFlag,
  tool: { type: "string", valueHint: "NAME", required: true, description: "the tool to call, such as cmd.run" },
  arg: many("K=V", "one of its arguments, as text"),
  args: { type: "string", valueHint: "JSON", description: "its arguments as a JSON object" },
  context: contextFlag,
  mode: {
    type: "string",
    valueHint: "parallel|sequential|rolling=N",
    default: "parallel",
    description: "all at once, one after another, or N at a time",
  },
  "max-concurrency": { type: "string", valueHint: "N", description: "hosts at a time in parallel mode (default 64)" },
  "on-error": {
    type: "string",
    valueHint: "fail-fast|continue|stop-after=N",
    description: "what a failed host means for the others (default: by the tool; those that only read continue)",
  },
  "require-min": { type: "string", valueHint: "N", description: "refuse to start with fewer hosts" },
  deadline: { type: "string", valueHint: "DURATION", default: "60s", description: "for each host" },
} as const;

export interface FleetRunTexts {
  target: string;
  tool: string;
  args: string | undefined;
  context: string;
  mode: string;
  "max-concurrency": string | undefined;
  "on-error": string | undefined;
  "require-min": string | undefined;
  deadline: string;
}

/** The API's request; every refusal names the flag. */
export function invokeRequest(texts: FleetRunTexts, argTexts: readonly string[]): InvokeRequest {
  const [mode, batch] = choice("--mode", texts.mode, ["parallel", "sequential"], "rolling");
  const onError = texts["on-error"];
  const [on_error, stop_after] =
    onError === undefined ? [null, null] : choice("--on-error", onError, ["fail-fast", "continue"], "stop-after");
  const optional = (flag: "max-concurrency" | "require-min", least: number) => {
    const text = texts[flag];
    return text === undefined ? undefined : wholeNumber(`--${flag}`, text, least, 10_000);
  };
  const max_concurrency = optional("max-concurrency", 1);
  return {
    target: parseTarget(texts.target),
    tool: texts.tool,
    args: toolArguments(texts.args, argTexts),
    context: texts.context,
    policy: {
      mode,
      batch,
      on_error,
      stop_after,
      ...(max_concurrency === undefined ? {} : { max_concurrency }),
      require_min: optional("require-min", 0) ?? null,
      deadline_secs: duration("--deadline", texts.deadline) / 1000,
    },
  };
}

/** One of `plain`, or `counted=N`. */
function choice<P extends string, C extends string>(
  flag: string,
  text: string,
  plain: readonly P[],
  counted: C,
): [P | C, number | null] {
  const found = plain.find((one) => one === text);
  if (found) return [found, null];
  const [name, number] = text.split("=", 2);
  if (name === counted && number !== undefined) return [counted, wholeNumber(flag, number, 1, 10_000)];
  throw new AegisError(
    "usage",
    `${flag} ${JSON.stringify(text)} is not one of ${[...plain, `${counted}=N`].join(", ")}`,
    { hint: `for example ${flag} ${counted}=5` },
  );
}

/** `--args` and `--arg` together; a key that both name is refused. */
export function toolArguments(json: string | undefined, texts: readonly string[]): Record<string, unknown> {
  const named = pairs("--arg", texts);
  if (json === undefined) return named;
  let whole: unknown;
  try {
    whole = JSON.parse(json);
  } catch (cause) {
    throw new AegisError("usage", `--args is not JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof whole !== "object" || whole === null || Array.isArray(whole))
    throw new AegisError("usage", "--args is not a JSON object", { hint: `for example --args '{"command":"uptime"}'` });
  const both = Object.keys(named).find((key) => Object.hasOwn(whole, key));
  if (both !== undefined) throw new AegisError("usage", `${both} is given by --arg and by --args`);
  return { ...whole, ...named };
}
