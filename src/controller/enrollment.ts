/** How a host becomes known: tokens issued to operators, challenges to hosts, and the one transaction that lets a host in. */
import { randomBytes, randomUUID } from "node:crypto";
import { nonceBytes, signEnrollGrant, verifyEnrollProof, verifyRekeyProof } from "../envelope/enrollment.ts";
import { type Claims, signJwt, verifyJwt } from "../envelope/jwt.ts";
import { importPublicKey } from "../envelope/public-key.ts";
import { uuidBytes } from "../envelope/statement.ts";
import { speaks, versionSkew } from "../envelope/versions.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { limits } from "../platform/limits.ts";
import type { Log } from "../platform/log.ts";
import type { Seal, Store } from "../store/store.ts";
import type { aegis } from "../wire/gen/messages.js";
import { recordAudit } from "./audit.ts";
import type { Challenges, OpenChallenge } from "./challenges.ts";
import type { ControllerKeys } from "./keys.ts";
import { mintNodeToken } from "./node-token.ts";

const leewaySecs = 60;

export interface EnrollmentOptions {
  store: Store;
  keys: ControllerKeys;
  pins: readonly string[];
  /** HOST:PORT that hosts dial. */
  publicEndpoint: string;
  challenges: Challenges;
  /** A host has a new key from now on: a session that its old key opened must end. */
  onAdmitted(nodeId: string): void;
  clock: Clock;
  /** Controller time in milliseconds. */
  time: () => number;
  log: Log;
  /** No host is enrolled for compat sessions. */
  requireStrict?: boolean | undefined;
  /** Hosts that are not revoked, of all tenants. */
  maxHosts?: number;
}

export interface TokenRequest {
  tenantId: string;
  /** A label of the operator's; the host's name when it brings none. */
  issuedTo: string;
  ttlMs: number;
  tags: readonly string[];
  /** Bound to this node: the only kind of token that may give a known node a new key. */
  forNode: string | null;
  /** Who asks for it. */
  principal?: string;
  /** Admits a host for compat sessions: the peer's daemon, or ours told to be like it. */
  compat?: boolean | undefined;
}

export interface Enrollment {
  issue(request: TokenRequest): Promise<{ token: string; expiresAt: number; controllerEndpoint: string }>;
  attest(
    request: aegis.cluster.v1.AttestNodeRequest.$Properties,
    address: string,
  ): { challengeNonce: Uint8Array; challengeId: string };
  challenge(request: aegis.cluster.v1.ChallengeNodeRequest.$Properties): Promise<Admission>;
}

export interface Admission {
  nodeSecurityToken: string;
  expiresAtMs: number;
  seal: Seal;
  keysetChain: Uint8Array[];
  enrollGrant: Uint8Array;
}

export function createEnrollment(options: EnrollmentOptions): Enrollment {
  const { store, keys, challenges, time, log, maxHosts = limits.hostsPerController } = options;
  const { controllerId } = keys.keyset;
  const endpoint = `https://${options.publicEndpoint}`;

  return {
    async issue({ tenantId, issuedTo, ttlMs, tags, forNode, compat = false, principal = "" }) {
      if (compat && options.requireStrict) throw strictOnly();
      const now = time();
      const bound = forNode ? await store.node(forNode) : null;
      if (forNode && (!bound || bound.tenantId !== tenantId))
        throw new AegisError("not_found", `no host ${forNode} in this tenant`, { hint: "aegis edge ls" });
      const claims: Claims<"enrollment"> = {
        tid: tenantId,
        sub: issuedTo,
        jti: randomUUID(),
        exp: Math.floor((now + ttlMs) / 1000),
        nbf: Math.floor(now / 1000) - leewaySecs,
        aud: "edge-enrollment",
        iss: controllerId,
        cep: endpoint,
        pin: [...options.pins],
        crk: keys.keyset.rootKey.kid,
        seal: compat ? "compat" : "strict",
        ...(forNode ? { nid: forNode } : {}),
        ...(tags.length > 0 ? { tags: [...tags] } : {}),
      };
      await recordAudit(store, {
        ...{ at: now, kind: "enrollment_token_issued", tenantId, principal, nodeId: forNode ?? "" },
        detail: {
          enrollment_jti: claims.jti,
          name: issuedTo,
          tags,
          expires_at: new Date(claims.exp * 1000).toISOString(),
        },
      });
      return {
        token: signJwt("enrollment", claims, keys.token),
        expiresAt: claims.exp * 1000,
        controllerEndpoint: endpoint,
      };
    },

    attest(request, address) {
      const { nodeId = "", publicKey, sealVersions = [] } = request;
      if (!nodeId || !uuidBytes(nodeId))
        throw new AegisError("invalid_request", "node_id is not a UUID in lower-case text");
      if (request.role !== edgeRole)
        throw new AegisError("invalid_request", "role must be NODE_ROLE_EDGE: this controller knows edges only");
      if (!request.capabilities)
        throw new AegisError("invalid_request", "capabilities must be present, even when empty");
      const strict = sealVersions?.some(speaks) ?? false;
      // Ours, of another time: it must not be taken for the peer's, which offers none.
      if (!strict && sealVersions && sealVersions.length > 0)
        throw new AegisError("precondition_failed", versionSkew("this controller", "this host", sealVersions));
      if (!strict && options.requireStrict) throw strictOnly();
      const nonce = randomBytes(nonceBytes);
      // Checking a key costs a millisecond, so an address that is over its limit gets none checked.
      const challengeId = challenges.open(address, () => {
        const key = publicKey ? importPublicKey(publicKey) : null;
        if (!key) throw new AegisError("invalid_request", "public_key is not a usable Ed25519 key of 32 bytes");
        return { nodeId, key, nonce, strict };
      });
      return { challengeNonce: nonce, challengeId };
    },

    async challenge(request) {
      const open = challenges.take(request.challengeId ?? "");
      const proof = { nodeId: request.nodeId ?? "", enrollmentToken: request.enrollmentToken ?? "" };
      if (!open || open.nodeId !== proof.nodeId)
        throw denied("the challenge is unknown, used or expired; enroll again");
      const { key, nonce, nodeId } = open;
      const signed = key.verify(nonce, request.challengeSignature ?? new Uint8Array());
      const rootKey = keys.keyset.rootKey;
      const pinned = rootOf(proof.enrollmentToken) ?? rootKey.kid;
      // The peer's client has no such proof; what it may be admitted for is decided below.
      const proven =
        !open.strict ||
        verifyEnrollProof(
          key,
          {
            nodeId,
            nodePublicKey: key.raw,
            enrollmentToken: Buffer.from(proof.enrollmentToken),
            nonce,
            rootKeyId: Buffer.from(pinned, "base64url"),
          },
          request.enrollProof ?? new Uint8Array(),
        );
      if (!signed || !proven) throw denied("the host did not prove its key");
      // The host would believe nothing that today's root vouches for: a token names the root of its day.
      if (open.strict && pinned !== rootKey.kid)
        throw denied(
          "the enrollment token is from before this controller's root key was changed, and void since; ask for a new one: aegis edge token issue",
        );
      const claims = readToken(proof.enrollmentToken);
      const admission = await admit(open, claims, sealFor(open, claims), request.rekeyProof ?? null);
      challenges.redeemed(open);
      return admission;
    },
  };

  /** The root that a token of this controller names; null for any other token. */
  function rootOf(token: string): string | null {
    const outcome = verifyJwt("enrollment", token, { keys: keys.keyset.tokenKeys, issuer: controllerId });
    return outcome.kind === "valid" ? (outcome.claims.crk ?? null) : null;
  }

  /** Of a token that this controller signed, the reason may be told; of any other, only that it is none. */
  function readToken(token: string): Claims<"enrollment"> {
    const outcome = verifyJwt("enrollment", token, { keys: keys.keyset.tokenKeys, issuer: controllerId });
    if (outcome.kind === "refused") {
      log.warn("enrollment_refused", { reason: outcome.reason });
      throw denied("the enrollment token is not one of this controller's");
    }
    const now = time() / 1000;
    const { exp, nbf } = outcome.claims;
    if (now > exp + leewaySecs)
      throw denied(
        `the enrollment token expired at ${new Date(exp * 1000).toISOString()}; this controller's time is ${new Date(time()).toISOString()}`,
      );
    if (now < nbf - leewaySecs)
      throw denied(`the enrollment token is valid from ${new Date(nbf * 1000).toISOString()} on`);
    return outcome.claims;
  }

  /** What kind of sessions the token admits this client to. A strict token never falls back. */
  function sealFor({ strict }: OpenChallenge, { seal = strict ? "strict" : "compat" }: Claims<"enrollment">): Seal {
    if (seal === "compat" && options.requireStrict) throw strictOnly();
    if (seal === "strict" && !strict)
      throw new AegisError(
        "precondition_failed",
        "this token admits a host for strict sessions, and this client knows none",
        { hint: "ask for another token: aegis edge token issue --compat" },
      );
    return seal;
  }

  async function admit(
    { nodeId, key, nonce }: OpenChallenge,
    claims: Claims<"enrollment">,
    seal: Seal,
    rekeyProof: Uint8Array | null,
  ): Promise<Admission> {
    const now = time();
    const minted = mintNodeToken({
      ...{ nodeId, tenantId: claims.tid, nodeKey: key, endpoint: claims.cep },
      ...{ controllerId, tokenKey: keys.token, nowMs: now },
    });
    await store.transaction(async (tx) => {
      if (!(await tx.tenant(claims.tid))) throw denied(`tenant ${claims.tid} does not exist here any more`);
      const known = await tx.node(nodeId);
      if (known && known.tenantId !== claims.tid) throw conflict("this host belongs to another tenant, for ever");
      if (claims.nid && claims.nid !== nodeId)
        throw conflict(`the token is bound to host ${claims.nid}, and this host is ${nodeId}`);
      // A token alone never takes a host over: it must be bound to it, or the key that the host has must agree.
      if (known?.revokedAt && claims.nid !== nodeId)
        throw conflict(
          `host ${nodeId} was revoked; only a token bound to it brings it back: aegis edge token issue --for ${nodeId}`,
        );
      if (known && claims.nid !== nodeId && !agreed(known.publicKey, { nodeId, key, nonce }, rekeyProof))
        throw conflict(
          `host ${nodeId} is enrolled already; ask for a token bound to it: aegis edge token issue --for ${nodeId}`,
        );
      if (known?.seal === "strict" && seal === "compat" && claims.nid !== nodeId)
        throw conflict(
          `host ${nodeId} is enrolled for strict sessions; only a token bound to it changes that: aegis edge token issue --for ${nodeId} --compat`,
        );
      if ((!known || known.revokedAt) && (await tx.nodeCount()) >= maxHosts)
        throw new AegisError("precondition_failed", `this controller has as many hosts as it may, ${maxHosts}`, {
          hint: "revoke one that is gone: aegis edge keys revoke-remote; or raise limits.hosts in its controller.yaml",
        });
      const owner = await tx.nodeIdByKeyId(key.keyId);
      if (owner && (owner !== nodeId || known?.revokedAt))
        throw conflict("this key belongs, or belonged, to a host; enroll with a new key");
      if (!(await tx.redeemEnrollment(claims.jti, nodeId, claims.exp * 1000, now)))
        throw denied(
          "the enrollment token was already redeemed; each admits one host once. If that was nobody you know, look for the host it admitted: aegis edge ls",
        );
      await tx.putNode({
        nodeId,
        tenantId: claims.tid,
        publicKey: key.raw,
        seal,
        hostName: claims.sub,
        displayName: known?.displayName ?? null,
        tags: known && !known.revokedAt ? known.tags : (claims.tags ?? []),
        capabilities: known?.capabilities ?? new Uint8Array(),
        softwareVersion: known?.softwareVersion ?? "",
        enrolledAt: known?.enrolledAt ?? now,
        connectedSince: null,
        lastHeartbeatAt: null,
        tokenJti: minted.jti,
        tokenExpiresAt: minted.expiresAtMs,
        revokedAt: null,
      });
      await recordAudit(tx, {
        ...{ at: now, kind: "host_enrolled", tenantId: claims.tid, nodeId },
        detail: {
          ...{ host_name: claims.sub, seal, enrollment_jti: claims.jti, token_jti: minted.jti },
          public_key: Buffer.from(key.raw).toString("base64url"),
          ...(known ? { before: Buffer.from(known.publicKey).toString("base64url") } : {}),
        },
      });
    });
    options.onAdmitted(nodeId);
    log.info("enrolled", { node_id: nodeId, tenant_id: claims.tid, host_name: claims.sub, seal });
    const { keyset, command } = keys;
    const enrollGrant = signEnrollGrant(command, {
      nodeId,
      nodePublicKey: key.raw,
      nonce,
      nodeToken: Buffer.from(minted.token),
      keyset: keyset.bytes,
    });
    return {
      nodeSecurityToken: minted.token,
      expiresAtMs: minted.expiresAtMs,
      seal,
      keysetChain: [keyset.signed],
      enrollGrant,
    };
  }
}

/** Whether the key that a known host has now signed for the key it wants, which may be the same one. */
function agreed(
  current: Uint8Array,
  { nodeId, key, nonce }: Pick<OpenChallenge, "nodeId" | "key" | "nonce">,
  rekeyProof: Uint8Array | null,
): boolean {
  const oldKey = importPublicKey(current);
  if (!oldKey || !rekeyProof) return false;
  return verifyRekeyProof(oldKey, { nodeId, oldPublicKey: current, newPublicKey: key.raw, nonce }, rekeyProof);
}

/** NodeRole.NODE_ROLE_EDGE. */
const edgeRole = 4;

const strictOnly = () =>
  new AegisError("precondition_failed", "this controller enrolls hosts for strict sessions only", {
    hint: "it was started with --require-strict",
  });
const denied = (message: string) =>
  new AegisError("unauthenticated", message, { hint: "ask for a new token: aegis edge token issue" });
const conflict = (message: string) => new AegisError("conflict", message);
