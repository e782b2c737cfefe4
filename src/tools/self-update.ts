/** Asks for an update of aegis on this host: aegis.update. What is installed is decided by the key built into the executable. */
import { randomUUID } from "node:crypto";
import { z } from "zod";
import { inputSchema, parseArgs } from "./parse-args.ts";
import { answered, failed } from "./results.ts";
import type { Tool } from "./tool.ts";

/** Outside the sandbox something waits for requests; the daemon composes this from its state directory. */
export interface UpdateDesk {
  /** Why nobody would act on a request; null when somebody would. */
  absent: string | null;
  current: string;
  request(id: string, version: string | null): Promise<void>;
  /** What became of the last request. */
  last(): Promise<Record<string, unknown> | null>;
}

const schema = z.strictObject({
  version: z
    .string()
    .regex(/^\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?$/)
    .optional()
    .describe("A release by its version, such as 0.2.0; the latest when absent. An older one is refused."),
  status: z.boolean().optional().describe("Only tell what became of the last request."),
});

export const selfUpdate = (desk: UpdateDesk): Tool => ({
  descriptor: {
    name: "aegis.update",
    description:
      "Updates aegis on the host to a signed release and restarts it; goes back by itself when the new one does not connect.",
    ...{ readOnly: false, destructive: true, fleetCapable: true, inputSchema: inputSchema(schema) },
  },
  async prepare(value) {
    const parsed = parseArgs(schema, value);
    if (parsed.kind === "invalid_args") return parsed;
    const { version = null, status = false } = parsed.args;
    return {
      kind: "ready",
      call: {
        accesses: [],
        async run({ maxOutputBytes }) {
          if (status) return answered({ current: desk.current, last: await desk.last() }, maxOutputBytes);
          if (desk.absent !== null) return failed("tool_not_locally_supported", desk.absent);
          const id = randomUUID();
          await desk.request(id, version);
          return answered({ requested: id, current: desk.current, version }, maxOutputBytes);
        },
      },
    };
  },
});
