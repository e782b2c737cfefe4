/** How a session ended, and who may be believed about it: only what was signed has more weight than a lost connection. */
import type { PendingHello } from "../envelope/handshake.ts";
import { advance } from "../envelope/keyset.ts";
import { maxRetryAfterMs, verifyRefusal } from "../envelope/refusal.ts";
import { AegisError, errorTable } from "../errors.ts";
import { aegis } from "../wire/gen/messages.js";
import { rawFields } from "../wire/raw-field.ts";
import { whole } from "../wire/whole.ts";
import type { NodeCredentials } from "./credentials.ts";
import type { StreamEnd } from "./link.ts";
import type { SessionOptions } from "./session.ts";
import type { SessionEnd } from "./supervise.ts";

const wire = aegis.cluster.v1;

/** A host that its controller revoked asks again at this pace, in case it was a mistake. */
const revokedRetryMs = 15 * 60_000;

/** `renewed`: the Hello was refused as `end` says, and with these it may not be. */
export type StreamOutcome = SessionEnd | { kind: "renewed"; credentials: NodeCredentials; end: SessionEnd };

export const lostBecause = (message: string): SessionEnd => ({
  kind: "lost",
  cause: new AegisError("unavailable", message),
});
export const broken = (reason: string): SessionEnd => lostBecause(`seal_frame: ${reason}`);

/** What an authenticated controller said on ending the session. */
export function goodbye(reason: number, retryAfterMs: number, detail: string): SessionEnd {
  const name = (wire.GoodbyeReason[reason] ?? "unknown").replace("GOODBYE_REASON_", "").toLowerCase();
  const wait =
    reason === wire.GoodbyeReason.GOODBYE_REASON_REVOKED ? revokedRetryMs : Math.min(retryAfterMs, maxRetryAfterMs);
  return {
    kind: "lost",
    cause: new AegisError("unavailable", `${name}: ${detail || "the controller ended the session"}`),
    retryAfterMs: wait,
  };
}

export function transportEnd({ status, message }: StreamEnd): SessionEnd {
  return {
    kind: "lost",
    cause: new AegisError("unavailable", status === 0 ? "the controller closed the stream" : message),
  };
}

/**
 * A Hello that was answered with an end. Only a refusal signed for this very Hello is believed to be the controller's:
 * whatever else comes costs no more than the usual wait.
 */
export async function refused(end: StreamEnd, hello: PendingHello, options: SessionOptions): Promise<StreamOutcome> {
  const said = await refusalIn(end, hello, options);
  const meant = said ? goodbye(said.reason, said.retryAfterMs, end.message) : transportEnd(end);
  const expired = said?.reason === wire.GoodbyeReason.GOODBYE_REASON_TOKEN_EXPIRED;
  if (!options.renew || !(expired || (!said && end.status === errorTable.unauthenticated.grpc))) return meant;
  try {
    const credentials = await options.renew(expired ? "expired" : "unknown");
    return credentials ? { kind: "renewed", credentials, end: meant } : meant;
  } catch (error) {
    const { message, hint } = AegisError.from(error);
    const why = `${AegisError.from(meant.kind === "lost" && meant.cause).message}; a new token was refused: ${message}`;
    const cause = new AegisError("unavailable", why, { cause: error, ...(hint === undefined ? {} : { hint }) });
    return { kind: "lost", cause };
  }
}

/** SealRefusal.keyset_chain. */
const refusalChainField = 4;

async function refusalIn(
  { refusal }: StreamEnd,
  { sealHello }: PendingHello,
  options: SessionOptions,
): Promise<{ reason: number; retryAfterMs: number } | null> {
  if (!refusal) return null;
  try {
    const { reason, signature, ...rest } = wire.SealRefusal.decode(refusal);
    const retryAfterMs = whole(rest.retryAfterMs);
    // Keys may have changed while this host was away. The chain proves itself; it is kept only with a refusal that it proves.
    const known = options.keyset();
    const chain = rawFields(refusal, refusalChainField);
    const moved = chain.length > 0 ? advance(known, chain) : ({ kind: "trusted", keyset: known } as const);
    if (moved.kind === "refused" || retryAfterMs === null) return null;
    const said = { nodeId: options.nodeId, sealHello, reason, retryAfterMs };
    if (!verifyRefusal(moved.keyset.commandKey, said, signature)) return null;
    if (moved.keyset.version > known.version) await options.saveKeyset(moved.keyset);
    return { reason, retryAfterMs };
  } catch {
    return null;
  }
}
