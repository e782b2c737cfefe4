/** Gives this host a new key: aegis.keys.rotate. The key is drawn here and told to nobody; what the caller gets is its fingerprint. */
import { z } from "zod";
import { AegisError } from "../errors.ts";
import { inputSchema, parseArgs } from "./parse-args.ts";
import { answered, failed } from "./results.ts";
import type { Tool } from "./tool.ts";

/** The daemon's own, which knows the key and the controller. */
export type RotateKeys = (request: {
  keepOldMs: number;
}) => Promise<{ fingerprint: string; formerFingerprint: string; tokenExpiresAtMs: number | null; resumed: boolean }>;

const daySecs = 24 * 60 * 60;

const schema = z.strictObject({
  keep_old_secs: z
    .number()
    .int()
    .min(0)
    .max(365 * daySecs)
    .default(daySecs)
    .describe("How long the old key stays in the host's archive; 0 = not at all."),
});

export const keyRotation = (rotate: RotateKeys): Tool => ({
  descriptor: {
    name: "aegis.keys.rotate",
    description:
      "Gives the host a new key and token. No call and no stream ends; the old key is good for 10 more minutes.",
    ...{ readOnly: false, destructive: false, fleetCapable: true, inputSchema: inputSchema(schema) },
  },
  async prepare(value) {
    const parsed = parseArgs(schema, value);
    if (parsed.kind === "invalid_args") return parsed;
    const keepOldMs = parsed.args.keep_old_secs * 1000;
    return {
      kind: "ready",
      call: {
        accesses: [],
        async run({ maxOutputBytes }) {
          try {
            const { fingerprint, formerFingerprint, tokenExpiresAtMs, resumed } = await rotate({ keepOldMs });
            const token_expires_at = tokenExpiresAtMs === null ? null : new Date(tokenExpiresAtMs).toISOString();
            const told = { key_fingerprint: fingerprint, former_key_fingerprint: formerFingerprint };
            return answered({ ...told, token_expires_at, resumed }, maxOutputBytes);
          } catch (thrown) {
            const { message, hint } = AegisError.from(thrown);
            return failed("internal", hint === undefined ? message : `${message}; ${hint}`);
          }
        },
      },
    };
  },
});
