/** A host whose one tool does what the test says, when it says so. */

import { randomUUID } from "node:crypto";
import { callLimits } from "../../src/daemon/call-limits.ts";
import type { Host } from "../../src/daemon/invoke.ts";
import type { ReceivedCall } from "../../src/daemon/received.ts";
import { replayGuard } from "../../src/daemon/replay.ts";
import type { UserVerifier } from "../../src/envelope/user.ts";
import type { Clock } from "../../src/platform/clock.ts";
import { securityContextsSchema } from "../../src/policy/context.ts";
import { operatorContext } from "../../src/policy/written-contexts.ts";
import {
  nothingCaptured,
  type StopReason,
  type Tool,
  type ToolContext,
  type ToolResult,
} from "../../src/tools/tool.ts";

/** One call of the tool that has begun. */
export interface Run {
  args: unknown;
  context: ToolContext;
  /** Ends it; `ok` unless told otherwise. */
  end(result?: Partial<ToolResult>): void;
  fail(error: Error): void;
}

export interface ScriptedTool {
  tool: Tool;
  /** Every call that began, in order. */
  runs: Run[];
}

export const okResult: ToolResult = { ok: true, exitCode: 0, stdout: nothingCaptured, stderr: nothingCaptured };

export function scriptedTool({ name = "test.work", obedient = true } = {}): ScriptedTool {
  const runs: Run[] = [];
  const tool: Tool = {
    descriptor: {
      name,
      description: "What a test wants.",
      inputSchema: { type: "object" },
      readOnly: false,
      destructive: false,
      fleetCapable: true,
    },
    prepare: async (args) => ({
      kind: "ready",
      call: {
        accesses: [],
        run: (context) =>
          new Promise<ToolResult>((resolve, reject) => {
            const end = (result: Partial<ToolResult> = {}) => resolve({ ...okResult, ...result });
            runs.push({ args, context, end, fail: reject });
            const stopped = () => {
              const { kind } = context.signal.reason as StopReason;
              end({ ok: false, errorKind: kind === "timeout" ? "timeout" : "cancelled", errorMessage: kind });
            };
            if (!obedient) return;
            if (context.signal.aborted) stopped();
            else context.signal.addEventListener("abort", stopped, { once: true });
          }),
      },
    }),
  };
  return { tool, runs };
}

/** Believes every caller: for tests of what comes after that. */
const credulous: UserVerifier = {
  verify: (_token, _signature, { tenant, context }) => ({
    kind: "caller",
    caller: { sub: "tester", tenantId: tenant, context, scopes: [], via: "cli" },
  }),
};

/** Trusts nobody's signature. */
const noOperators: Host["operators"] = {
  judge: () => ({ kind: "refused", errorKind: "operator_signature_required", message: "nobody is trusted here" }),
};

export interface ScriptedHostOptions {
  clock: Clock;
  tools: readonly Tool[];
  nodeId?: string;
  tenantId?: string;
  users?: UserVerifier;
}

/** Allows everything to everybody, in the contexts `default` and `operator`, and in `signed` with an operator's signature. */
export function scriptedHost({
  clock,
  tools,
  nodeId = "3f2b8c1e-5d4a-4e6f-8a9b-0c1d2e3f4a5b",
  tenantId = "acme",
  users = credulous,
}: ScriptedHostOptions): Host {
  const everything = operatorContext() as object;
  const contexts = securityContextsSchema.parse([
    everything,
    { ...everything, name: "default" },
    { ...everything, name: "signed", require_operator_signature: true },
  ]);
  return {
    nodeId,
    tenantId,
    users,
    contexts: new Map(contexts.map((context) => [context.name, context])),
    requireOperatorSignature: false,
    operators: noOperators,
    tools: {
      get: (name: string) => tools.find((tool) => tool.descriptor.name === name),
      list: () => tools.map((tool) => tool.descriptor),
    },
    replay: replayGuard(clock),
    limits: callLimits(clock),
    paused: () => false,
    protectedPaths: [],
    hidden: () => null,
    home: "/home/tester",
  };
}

/** A call of the scripted tool, as a session hands it on. */
export const receivedCall = (clock: Clock, change: Partial<ReceivedCall> = {}): ReceivedCall => ({
  ...{ commandId: randomUUID(), commandBody: new Uint8Array(), frameTimeMs: 0, receivedAt: clock.monotonic() },
  ...{ tool: "test.work", context: "default", tenant: "acme", userToken: "", signature: new Uint8Array() },
  ...{ argsJson: Buffer.from("{}"), deadlineMs: 0, initialCredit: 0, onNoCredit: "wait", operator: new Uint8Array() },
  trace: null,
  ...change,
});

/** Lets everything run that only waits for promises. */
export const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
