/** Writes the command for one call: the caller's short-lived token, and the statement that ties the caller to this very call. */
import { randomUUID } from "node:crypto";
import { type Claims, signJwt } from "../envelope/jwt.ts";
import type { SigningKey } from "../envelope/public-key.ts";
import { maxUserTokenSecs, signUserCall } from "../envelope/user.ts";
import { limits } from "../platform/limits.ts";
import { traceparent } from "../platform/trace-context.ts";
import type { Seal } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong, toSeconds } from "../wire/whole.ts";
import { compatCommand } from "./compat-command.ts";
import type { CallRequest } from "./dispatch-types.ts";
import type { ControllerKeys } from "./keys.ts";

/** A token is made anew when older than this; hosts take it for 300 s. */
const reuseMs = 240_000;
/** Tokens kept for reuse: one for each principal, context and run under way. */
const maxTokens = 1_024;

const onNoCredit = {
  wait: aegis.cluster.v1.OnNoCredit.ON_NO_CREDIT_WAIT,
  drop: aegis.cluster.v1.OnNoCredit.ON_NO_CREDIT_DROP,
} as const;

interface CallerToken {
  token: string;
  key: SigningKey;
  since: number;
}

/** The serialised EdgeCommand of a call, in the form that a host of this kind takes. */
export function callers({
  keys,
  controllerId,
  time,
}: {
  keys: ControllerKeys;
  controllerId: string;
  time: () => number;
}): (request: CallRequest, seal: Seal) => Uint8Array {
  const tokens = new Map<string, CallerToken>();

  function tokenFor({ principal, context, runId, via }: CallRequest): CallerToken {
    const id = JSON.stringify([principal.tenantId, principal.name, context, runId, via]);
    const now = time();
    const known = tokens.get(id);
    if (known && now - known.since < reuseMs) return known;
    const key = keys.caller(now);
    const iat = Math.floor(now / 1000);
    const claims: Claims<"user"> = {
      iss: controllerId,
      aud: "aegis-edge",
      sub: principal.name,
      tid: principal.tenantId,
      scp: context,
      scopes: [...principal.scopes],
      jti: randomUUID(),
      iat,
      exp: iat + maxUserTokenSecs,
      via,
      cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: Buffer.from(key.raw).toString("base64url") } },
    };
    const entry = { token: signJwt("user", claims, keys.token), key, since: now };
    tokens.delete(id);
    // Oldest first. One that is used no more is of no use.
    for (const [other, { since }] of tokens) {
      if (now - since < reuseMs && tokens.size < maxTokens) break;
      tokens.delete(other);
    }
    tokens.set(id, entry);
    return entry;
  }

  return (request, seal) => {
    if (seal === "compat") return compatCommand(request, tokenFor(request).token);
    const { commandId, nodeId, context, tool, deadlineMs, principal, runId, operator, trace } = request;
    const argsJson = Buffer.from(request.argsJson, "utf8");
    const { token, key } = tokenFor(request);
    const call = {
      nodeId,
      commandId,
      tenant: principal.tenantId,
      context,
      tool,
      argsJson,
      deadlineMs,
      operator,
    };
    return aegis.cluster.v1.EdgeCommand.encode({
      invokeTool: {
        commandId,
        securityContextName: context,
        sealEnvelope: {
          userSecurityToken: token,
          tenantId: principal.tenantId,
          securityContextName: context,
          signature: signUserCall(key, token, call),
        },
        toolName: tool,
        argsJson,
        runId,
        operator,
        ...(trace ? { traceparent: traceparent(trace), tracestate: trace.state } : {}),
        ...(deadlineMs > 0 ? { deadline: toSeconds(deadlineMs) } : {}),
        ...(request.progress
          ? { initialCredit: toLong(limits.firstCreditBytes), onNoCredit: onNoCredit[request.onNoCredit ?? "wait"] }
          : {}),
      },
    }).finish();
  };
}
