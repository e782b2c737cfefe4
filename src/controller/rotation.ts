/** New keys and new tokens for known hosts: asked for with the key they have, granted once, and with both keys good for a while. */
import type { Claims } from "../envelope/jwt.ts";
import { readOperatorChallenge } from "../envelope/operator.ts";
import { importPublicKey, importSigningKey, importStoredKey, newSeed, type PublicKey } from "../envelope/public-key.ts";
import {
  type Rotation,
  readRotation,
  type SignedRotation,
  signRotateGrant,
  verifyRotation,
} from "../envelope/rotation.ts";
import { sha256 } from "../envelope/statement.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import type { NodeRow, Queries, Store } from "../store/store.ts";
import { aegis } from "../wire/gen/messages.js";
import { toSeconds, whole } from "../wire/whole.ts";
import { recordAudit } from "./audit.ts";
import type { LiveNode } from "./dispatch-types.ts";
import type { ControllerKeys } from "./keys.ts";
import { keysetsSince } from "./keysets.ts";
import type { LiveSession } from "./node-session.ts";
import { isBoundTo, mintNodeToken, reconnectGraceMs } from "./node-token.ts";
import type { Sessions } from "./sessions.ts";

const { GoodbyeReason, SignedKeySet } = aegis.cluster.v1;

const rotationLimits = { perHour: 10 };
const hourMs = 60 * 60 * 1000;

/**
 * How long the old key still opens sessions and vouches for results: what a host may keep a result for, so that none that
 * was signed before the change is lost by it.
 */
export const overlapMs = 10 * 60 * 1000;

export interface RotationOptions {
  store: Store;
  keys: ControllerKeys;
  sessions: Pick<Sessions, "get" | "end">;
  /** HOST:PORT that hosts dial. */
  publicEndpoint: string;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
}

export interface Rotated {
  nodeSecurityToken: string;
  expiresAtMs: number;
  /** Null when the key stayed. */
  overlapUntilMs: number | null;
  rotateGrant: Uint8Array;
  /** Serialised SignedKeySets: from what the host trusts to the key that signed the grant; empty for one that knows none. */
  keysetChain: Uint8Array[];
}

/** As it travels. */
export const rotationAnswer = (rotated: Rotated): aegis.cluster.v1.RotateEdgeKeyResponse.$Properties => ({
  ...{ nodeSecurityToken: rotated.nodeSecurityToken, rotateGrant: rotated.rotateGrant },
  expiresAt: toSeconds(rotated.expiresAtMs),
  ...(rotated.overlapUntilMs === null ? {} : { overlapUntil: toSeconds(rotated.overlapUntilMs) }),
  keysetChain: rotated.keysetChain.map((signed) => SignedKeySet.decode(signed)),
});

export interface Rotations {
  rotate(request: aegis.cluster.v1.RotateEdgeKeyRequest.$Properties): Promise<Rotated>;
  /** Waits for no overlap any more. */
  close(): void;
}

export function createRotations(options: RotationOptions): Rotations {
  const { store, keys, sessions, clock, time, log } = options;
  const closing = new AbortController();
  // Verified instead of a host's key when there is no such host, so that an answer takes as long either way.
  const nobody: PublicKey = importSigningKey(newSeed());

  return {
    async rotate(request) {
      const rotation = readRotation(request.currentEnvelope?.payload ?? new Uint8Array());
      const outer = request.newPublicKey ?? new Uint8Array();
      if (!rotation || !Buffer.from(outer).equals(rotation.newKey.raw))
        throw new AegisError("invalid_request", "the request names no usable node, key and nonce of 32 bytes");
      const signatures = {
        oldSignature: request.currentEnvelope?.signature ?? new Uint8Array(),
        newSignature: request.signatureWithNewKey ?? new Uint8Array(),
      };
      const { nodeId, newKey, bytes } = rotation;
      // All of it or none: a host whose key was changed here has a token for it, whatever becomes of the answer.
      const { token, expiresAtMs, changed, overlapUntilMs } = await store.transaction((tx) =>
        change(tx, rotation, signatures),
      );
      if (changed) void endLater(nodeId);
      log.info(changed ? "node_key_rotated" : "node_token_renewed", { node_id: nodeId, key_id: newKey.kid });
      const rotateGrant = signRotateGrant(keys.command, {
        ...{ nodeId, rotation: bytes, nodeToken: Buffer.from(token), overlapUntilMs: overlapUntilMs ?? 0 },
      });
      const version = whole(request.keysetVersion) ?? 0;
      const keysetChain = version > 0 ? await keysetsSince(store, version, keys.keyset) : [];
      return { nodeSecurityToken: token, expiresAtMs, overlapUntilMs, rotateGrant, keysetChain };
    },
    close: () => closing.abort(),
  };

  async function change(tx: Queries, rotation: Rotation, signatures: Omit<SignedRotation, "bytes">) {
    const { nodeId, newKey, nonce, bytes } = rotation;
    const now = time();
    const row = await tx.node(nodeId);
    const current = (row && importPublicKey(row.publicKey)) ?? nobody;
    // A host that never got the answer asks again for the key that it already has here, with the one it knows of.
    const before = newKey.kid === current.kid ? await previousKey(tx, nodeId, now) : null;
    const signer = [current, before?.key].find((key) => key && verifyRotation(rotation, key, signatures));
    if (!row || !signer) {
      log.warn("rotation_refused", { node_id: nodeId });
      throw new AegisError("unauthenticated", "the host did not prove its key");
    }
    admissible(row, now);
    if ((await tx.rotations(nodeId, now - hourMs)).length >= rotationLimits.perHour)
      throw new AegisError("rate_limited", `a host may rotate ${rotationLimits.perHour} times an hour; wait`);
    const changed = newKey.kid !== current.kid;
    if (changed && (await tx.nodeIdByKeyId(newKey.keyId)))
      throw new AegisError("conflict", "this key belongs, or belonged, to a host; make a new one");
    const minted = mintNodeToken({
      ...{ nodeId, tenantId: row.tenantId, nodeKey: newKey, endpoint: `https://${options.publicEndpoint}` },
      ...{ controllerId: keys.keyset.controllerId, tokenKey: keys.token, nowMs: now },
    });
    const repeated = before && signer.kid === before.key.kid ? before.untilMs : null;
    const overlapUntilMs = changed ? now + overlapMs : repeated;
    const fresh = await tx.insertRotation({
      ...{ nodeId, nonce, rotatedAt: now, oldKey: signer.raw, newKey: newKey.raw, request: bytes, ...signatures },
      overlapUntil: overlapUntilMs ?? 0,
    });
    if (!fresh) throw new AegisError("conflict", "this very request was answered before; ask with a new nonce");
    const { jti: tokenJti, expiresAtMs: tokenExpiresAt } = minted;
    await tx.putNode({ ...row, publicKey: newKey.raw, tokenJti, tokenExpiresAt });
    await recordAudit(tx, {
      ...{ at: now, kind: changed ? "host_rekeyed" : "host_token_refreshed", tenantId: row.tenantId, nodeId },
      detail: {
        ...{ token_jti: tokenJti, public_key: Buffer.from(newKey.raw).toString("base64url") },
        ...(changed ? { before: Buffer.from(row.publicKey).toString("base64url") } : {}),
      },
    });
    return { ...minted, changed, overlapUntilMs };
  }

  /** A session that the old key opened lives on, since its calls do. It ends with the overlap unless it has shown the new key. */
  async function endLater(nodeId: string): Promise<void> {
    const live = sessions.get(nodeId);
    if (!live) return;
    await clock.sleep(overlapMs, closing.signal);
    if (closing.signal.aborted || sessions.get(nodeId) !== live) return;
    if (await showsCurrentKey(store, live)) return;
    sessions.end(nodeId, GoodbyeReason.GOODBYE_REASON_REBALANCE, replaced);
  }
}

/** Only its own key got a host this far, so it may be told why. */
function admissible(row: NodeRow, now: number): void {
  if (row.revokedAt !== null) throw new AegisError("forbidden", "this host was revoked");
  if (now > row.tokenExpiresAt + reconnectGraceMs)
    throw new AegisError("unauthenticated", "the node token expired more than a year ago; enroll the host again", {
      hint: "aegis edge token issue --for NODE",
    });
}

export interface PreviousKey {
  key: PublicKey;
  /** Controller time at which it stops being good. */
  untilMs: number;
}

/** The key before the current one, while the two overlap. */
async function previousKey(queries: Queries, nodeId: string, now: number): Promise<PreviousKey | null> {
  for (const { oldKey, newKey, overlapUntil } of await queries.rotations(nodeId, now - overlapMs)) {
    if (overlapUntil <= now || Buffer.from(oldKey).equals(newKey)) continue;
    const key = importPublicKey(oldKey);
    return key && { key, untilMs: overlapUntil };
  }
  return null;
}

/** The host's key that this token is bound to, if it may open a session now; `untilMs` null = with no end. */
export async function sessionKey(
  queries: Queries,
  row: NodeRow,
  claims: Claims<"node">,
  now: number,
): Promise<{ key: PublicKey; untilMs: number | null } | null> {
  const current = importStoredKey(row.publicKey);
  if (current && isBoundTo(claims, current)) return { key: current, untilMs: null };
  const previous = await previousKey(queries, row.nodeId, now);
  return previous && isBoundTo(claims, previous.key) ? previous : null;
}

/** The key of this id that may vouch for the host's results now. */
export async function resultKey(
  queries: Queries,
  nodeId: string,
  keyId: Uint8Array,
  now: number,
): Promise<PublicKey | null> {
  const row = await queries.node(nodeId);
  if (row && Buffer.from(sha256(row.publicKey)).equals(keyId)) return importStoredKey(row.publicKey);
  const previous = await previousKey(queries, nodeId, now);
  return previous && Buffer.from(previous.key.keyId).equals(keyId) ? previous.key : null;
}

/**
 * Whether what this session says of itself to operators is signed with the host's key of now: that takes the key, so the
 * session may stay although another one opened it.
 */
async function showsCurrentKey(queries: Queries, { nodeId, tenantId, operatorChallenge }: LiveNode): Promise<boolean> {
  const shown = operatorChallenge && readOperatorChallenge(operatorChallenge, { nodeId, tenant: tenantId });
  if (!shown) return false;
  const row = await queries.node(nodeId);
  return row !== null && Buffer.from(row.publicKey).equals(shown.key.raw);
}

/** Ends a session with the key that opened it; `untilMs` null = that key is the host's own. */
export async function endWithKey(
  { goodbye, live }: Pick<LiveSession, "goodbye" | "live">,
  untilMs: number | null,
  { store, clock, time, signal }: { store: Queries; clock: Clock; time: () => number; signal: AbortSignal },
): Promise<void> {
  if (untilMs === null) return;
  await clock.sleep(Math.max(0, untilMs - time()), signal);
  if (signal.aborted || (await showsCurrentKey(store, live)) || signal.aborted) return;
  goodbye(GoodbyeReason.GOODBYE_REASON_REBALANCE, replaced);
}

const replaced = "the key that opened this session was replaced";
