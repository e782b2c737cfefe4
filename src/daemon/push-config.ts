/**
 * What a controller may set on a host, by name: four settings that widen nothing, for as long as its stream lasts.
 * Everything else is refused as a whole, so that a push never half happens.
 */
import { z } from "zod";
import { labelForm } from "../config/edge-schema.ts";
import { type LogLevel, logLevels } from "../platform/log.ts";
import { quote } from "../policy/quote.ts";
import type { google } from "../wire/gen/messages.js";
import { structToJson } from "../wire/json.ts";

export interface PushedSettings {
  heartbeatIntervalMs?: number;
  maxConcurrent?: number;
  logLevel?: LogLevel;
  customLabels?: Readonly<Record<string, string>>;
}

/** Where pushed settings take effect. */
export interface StreamSettings {
  /** The host's own number of calls at once: nobody raises it from afar. */
  readonly maxConcurrent: number;
  /** On top of what was pushed before. */
  apply(settings: PushedSettings): void;
  /** The stream has ended: the host's own settings hold again. */
  reset(): void;
}

export type PushReading = { kind: "settings"; settings: PushedSettings } | { kind: "rejected"; reasons: string[] };

const maxLabels = 64;

export function readPushConfig(
  delta: google.protobuf.Struct.$Properties | null | undefined,
  { maxConcurrent }: Pick<StreamSettings, "maxConcurrent">,
): PushReading {
  const schema = z.strictObject({
    heartbeat_interval_secs: z.number().int().min(1).max(3_600).optional(),
    max_concurrent_invocations: z.number().int().min(1).max(maxConcurrent).optional(),
    log_level: z.enum(logLevels).optional(),
    custom_labels: z
      .record(z.string().regex(labelForm), z.string().max(256))
      .refine((labels) => Object.keys(labels).length <= maxLabels, { error: `more than ${maxLabels} labels` })
      .optional(),
  });
  const parsed = schema.safeParse(structToJson(delta ?? {}));
  if (!parsed.success) return { kind: "rejected", reasons: parsed.error.issues.flatMap(inWords) };
  const { heartbeat_interval_secs, max_concurrent_invocations, log_level, custom_labels } = parsed.data;
  return {
    kind: "settings",
    settings: {
      ...(heartbeat_interval_secs === undefined ? {} : { heartbeatIntervalMs: heartbeat_interval_secs * 1000 }),
      ...(max_concurrent_invocations === undefined ? {} : { maxConcurrent: max_concurrent_invocations }),
      ...(log_level === undefined ? {} : { logLevel: log_level }),
      ...(custom_labels === undefined ? {} : { customLabels: custom_labels }),
    },
  };
}

function inWords(issue: z.core.$ZodIssue): string[] {
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => `${quote(key)} is not for a controller to set`);
  return [`${issue.path.map(String).join(".") || "the settings"}: ${issue.message}`];
}
