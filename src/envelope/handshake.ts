/**
 * Hello, ACCEPT, CONFIRM: how two ends come to share a session. Every session is made here and nowhere else, from keys
 * drawn for it alone, so that none can be resumed, spliced or replayed.
 */
import {
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from "node:crypto";
import { aegis } from "../wire/gen/messages.js";
import { rawFields, withRawFields } from "../wire/raw-field.ts";
import { toLong, whole } from "../wire/whole.ts";
import {
  type ControllerChannel,
  controllerChannel,
  type DaemonChannel,
  daemonChannel,
  type Frame,
  maxBodyBytes,
  type SessionSecrets,
} from "./frame.ts";
import { advance, type KeysetFailure, type TrustedKeyset } from "./keyset.ts";
import type { PublicKey, SigningKey } from "./public-key.ts";
import { sha256, statement, uuidBytes, uuidFromBytes } from "./statement.ts";
import { sealVersions, speaks } from "./versions.ts";

const { SealAccept, SealHello } = aegis.cluster.v1;

export interface SessionLimits {
  maxBody: number;
  maxWindow: number;
  /** 0 = the daemon's own setting. */
  heartbeatSecs: number;
}

export interface HelloInput {
  nodeId: string;
  streamId: string;
  nodeKey: SigningKey;
  keyset: TrustedKeyset;
  /** A serialised EdgeCapabilities. */
  capabilities: Uint8Array;
  softwareVersion: string;
  /** The host's clock. Nothing goes by it. */
  wallMs: number;
}

export type AcceptFailure =
  | KeysetFailure
  | "accept_expected"
  | "accept_malformed"
  | "accept_authentication"
  | "controller_unknown"
  | "version"
  | "key_agreement";

export type Accepted =
  | {
      kind: "accepted";
      channel: DaemonChannel;
      /** What to trust from now on: store it, when it is newer, before anything is sent. */
      keyset: TrustedKeyset;
      serverTimeMs: number;
      limits: SessionLimits;
      mustRefresh: boolean;
    }
  | { kind: "refused"; reason: Exclude<AcceptFailure, "version"> }
  /** `version` is the one that the other end chose. */
  | { kind: "refused"; reason: "version"; version: number };

export interface PendingHello {
  /** A serialised SealHello, and statement 0x01 over it. */
  readonly sealHello: Uint8Array;
  readonly signature: Uint8Array;
  /** Judges the first frame of the controller. May be called once. */
  accept(frame: Frame): Accepted;
}

/** The daemon's first word. */
export function sayHello(input: HelloInput): PendingHello {
  const { nodeId, streamId, nodeKey, keyset } = input;
  const ephemeral = generateKeyPairSync("x25519");
  const sealHello = SealHello.encode({
    versions: [...sealVersions],
    daemonNonce: randomBytes(32),
    x25519: rawX25519(ephemeral.publicKey),
    controllerId: requireUuid(keyset.controllerId),
    keysetVersion: toLong(keyset.version),
    capabilities: input.capabilities,
    softwareVersion: input.softwareVersion,
    wallMs: toLong(input.wallMs),
  }).finish();
  let answered = false;
  return {
    sealHello,
    signature: nodeKey.sign(statement("hello", { nodeId, streamId, sealHello })),
    accept(frame) {
      if (answered || frame.kind !== 0x10) return { kind: "refused", reason: "accept_expected" };
      answered = true;
      if (frame.body.length > maxBodyBytes) return { kind: "refused", reason: "accept_malformed" };
      const body = decodeAccept(frame.body);
      if (!body) return { kind: "refused", reason: "accept_malformed" };
      if (body.controllerId !== keyset.controllerId) return { kind: "refused", reason: "controller_unknown" };
      if (!speaks(body.version)) return { kind: "refused", reason: "version", version: body.version };
      // The chain proves itself up to the pinned root, so it may be read before the frame it came in is verified with its key.
      const trusted = advance(keyset, body.keysetChain);
      if (trusted.kind === "refused") return trusted;
      if (trusted.keyset.version !== body.keysetVersion) return { kind: "refused", reason: "keyset_missing" };
      const secrets = agree(ephemeral.privateKey, body.x25519, { nodeId, streamId, sealHello, acceptBody: frame.body });
      if (!secrets) return { kind: "refused", reason: "key_agreement" };
      const channel = daemonChannel(secrets, nodeKey, trusted.keyset.commandKey);
      if (channel.open(frame).kind === "refused") return { kind: "refused", reason: "accept_authentication" };
      const { serverTimeMs, limits, mustRefresh } = body;
      return { kind: "accepted", channel, keyset: trusted.keyset, serverTimeMs, limits, mustRefresh };
    },
  };
}

/** A Hello whose signature the node's key made. It has no effect until a CONFIRM proves that it is not a recording. */
export interface HeardHello {
  nodeId: string;
  streamId: string;
  sealHello: Uint8Array;
  nodeKey: PublicKey;
  x25519: Uint8Array;
  controllerId: string;
  keysetVersion: number;
  capabilities: Uint8Array;
  softwareVersion: string;
  wallMs: number;
}

/** What a refusal needs of a Hello. */
export type HelloName = Pick<HeardHello, "nodeId" | "sealHello" | "keysetVersion">;

export type Heard =
  | { kind: "heard"; hello: HeardHello }
  | { kind: "refused"; reason: "hello_signature" | "hello_malformed" }
  /** The node's own key offers these, and none that we speak. */
  | ({ kind: "refused"; reason: "version"; versions: readonly number[] } & HelloName);

/** The controller's reading of a Hello. The signature is checked before the content is decoded. */
export function hearHello(input: {
  nodeId: string;
  streamId: string;
  sealHello: Uint8Array;
  signature: Uint8Array;
  nodeKey: PublicKey;
}): Heard {
  const { nodeId, streamId, sealHello, signature, nodeKey } = input;
  if (!uuidBytes(nodeId) || !uuidBytes(streamId) || sealHello.length > maxBodyBytes)
    return { kind: "refused", reason: "hello_malformed" };
  if (!nodeKey.verify(statement("hello", { nodeId, streamId, sealHello }), signature))
    return { kind: "refused", reason: "hello_signature" };
  try {
    const body = SealHello.decode(sealHello);
    const keysetVersion = whole(body.keysetVersion);
    const wallMs = whole(body.wallMs);
    if (keysetVersion === null || wallMs === null) return { kind: "refused", reason: "hello_malformed" };
    const { versions } = body;
    // Before anything else is read: what else a Hello of another version holds is that version's affair.
    if (!versions.some(speaks))
      return { kind: "refused", reason: "version", versions, nodeId, sealHello, keysetVersion };
    if (body.daemonNonce.length !== 32 || body.x25519.length !== 32 || body.controllerId.length !== 16) {
      return { kind: "refused", reason: "hello_malformed" };
    }
    const { x25519, capabilities, softwareVersion } = body;
    const controllerId = uuidFromBytes(body.controllerId);
    return {
      kind: "heard",
      hello: {
        nodeId,
        streamId,
        sealHello,
        nodeKey,
        x25519,
        controllerId,
        keysetVersion,
        capabilities,
        softwareVersion,
        wallMs,
      },
    };
  } catch {
    return { kind: "refused", reason: "hello_malformed" };
  }
}

export interface AcceptInput {
  commandKey: SigningKey;
  /** Serialised SignedKeySets: each change of root since the daemon's version, then the newest. */
  keysetChain: readonly Uint8Array[];
  keysetVersion: number;
  serverTimeMs: number;
  limits: SessionLimits;
  mustRefresh: boolean;
}

/** The controller's answer and its end of the session, or null when the daemon's key share is unusable. */
export function answerHello(
  hello: HeardHello,
  input: AcceptInput,
): { channel: ControllerChannel; accept: Frame } | null {
  const ephemeral = generateKeyPairSync("x25519");
  const accept = SealAccept.encode({
    version: sealVersions[0],
    serverNonce: randomBytes(32),
    x25519: rawX25519(ephemeral.publicKey),
    controllerId: requireUuid(hello.controllerId),
    keysetVersion: toLong(input.keysetVersion),
    serverTimeMs: toLong(input.serverTimeMs),
    limits: {
      maxBody: toLong(input.limits.maxBody),
      maxWindow: toLong(input.limits.maxWindow),
      heartbeatSecs: input.limits.heartbeatSecs,
    },
    mustRefresh: input.mustRefresh,
  }).finish();
  const acceptBody = withRawFields(accept, keysetChainField, input.keysetChain);
  const { nodeId, streamId, sealHello } = hello;
  const secrets = agree(ephemeral.privateKey, hello.x25519, { nodeId, streamId, sealHello, acceptBody });
  if (!secrets) return null;
  const channel = controllerChannel(secrets, input.commandKey, hello.nodeKey);
  return { channel, accept: channel.seal("accept", acceptBody, input.serverTimeMs) };
}

export interface Transcript {
  nodeId: string;
  streamId: string;
  sealHello: Uint8Array;
  acceptBody: Uint8Array;
}

/**
 * The session's id and keys, or null for a share that is none: X25519 throws on one of small order, and whatever throws
 * here is a refusal. For this module, and for the vectors that check it.
 */
export function agree(own: KeyObject, share: Uint8Array, transcript: Transcript): SessionSecrets | null {
  const sessionId = sha256(statement("session", transcript));
  try {
    const peer = createPublicKey({ key: Buffer.concat([x25519Prefix, share]), format: "der", type: "spki" });
    const shared = diffieHellman({ privateKey: own, publicKey: peer });
    if (shared.length !== 32 || shared.every((byte) => byte === 0)) return null;
    const key = (info: string) => new Uint8Array(hkdfSync("sha256", shared, sessionId, `AEGIS-SEAL/1 ${info}`, 32));
    return { nodeId: transcript.nodeId, sessionId, toController: key("d2c"), toDaemon: key("c2d") };
  } catch {
    return null;
  }
}

const x25519Prefix = Buffer.from("302a300506032b656e032100", "hex");
const rawX25519 = (key: KeyObject): Uint8Array =>
  key.export({ format: "der", type: "spki" }).subarray(x25519Prefix.length);

function requireUuid(text: string): Uint8Array {
  const bytes = uuidBytes(text);
  if (!bytes) throw new RangeError(`${text} is not a UUID`);
  return bytes;
}

/** SealAccept.keyset_chain. */
const keysetChainField = 6;

function decodeAccept(bytes: Uint8Array) {
  try {
    const body = SealAccept.decode(bytes);
    const keysetVersion = whole(body.keysetVersion);
    const serverTimeMs = whole(body.serverTimeMs);
    const maxBody = whole(body.limits?.maxBody);
    const maxWindow = whole(body.limits?.maxWindow);
    if (keysetVersion === null || serverTimeMs === null || maxBody === null || maxWindow === null) return null;
    if (body.serverNonce.length !== 32 || body.x25519.length !== 32 || body.controllerId.length !== 16) return null;
    return {
      version: body.version,
      x25519: body.x25519,
      controllerId: uuidFromBytes(body.controllerId),
      keysetVersion,
      keysetChain: rawFields(bytes, keysetChainField),
      serverTimeMs,
      limits: { maxBody, maxWindow, heartbeatSecs: body.limits?.heartbeatSecs ?? 0 },
      mustRefresh: body.mustRefresh,
    };
  } catch {
    return null;
  }
}
