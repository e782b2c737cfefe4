/**
 * What an operator's own key signs: one call on one host, under a challenge that this host gave out lately. It travels
 * through controllers as bytes, and none of them can make one, change one or use it for another host or another call.
 */
import { aegis } from "../wire/gen/messages.js";
import { toLong, whole } from "../wire/whole.ts";
import { importPublicKey, type PublicKey, type SigningKey } from "./public-key.ts";
import { statement } from "./statement.ts";

const wire = aegis.cluster.v1;

/** Raw Ed25519, the one algorithm there is. */
const rawEd25519 = 1;
/** Longest note of an operator, in bytes of UTF-8. */
const maxNoteBytes = 200;
/** In a challenge's `contexts`: every one of the host's. */
export const everyContext = "*";

/** What is signed besides the challenge. */
export interface OperatorCall {
  nodeId: string;
  tenant: string;
  context: string;
  tool: string;
  /** Exact bytes of args_json. */
  argsJson: Uint8Array;
  /** Whole milliseconds; 0 = none. */
  deadlineMs: number;
}

export interface OperatorProof {
  /** SHA-256 of the operator's public key. */
  keyId: Uint8Array;
  challenge: Uint8Array;
  /** 16 random bytes: the host runs each once. */
  statementId: Uint8Array;
  /** The operator's clock, for records only. */
  issuedMs: number;
  note: string;
  signature: Uint8Array;
}

/** A serialised OperatorProof. */
export function signOperatorProof(
  key: SigningKey,
  call: OperatorCall,
  given: Pick<OperatorProof, "challenge" | "statementId" | "issuedMs" | "note">,
): Uint8Array {
  if (Buffer.byteLength(given.note, "utf8") > maxNoteBytes)
    throw new RangeError(`an operator's note has at most ${maxNoteBytes} bytes`);
  const { challenge, statementId, issuedMs, note } = given;
  return wire.OperatorProof.encode({
    ...{ keyId: key.keyId, challenge, statementId, note, alg: rawEd25519 },
    issuedMs: toLong(issuedMs),
    signature: key.sign(statement("operator", { ...call, ...given })),
  }).finish();
}

/** Its parts, or null for bytes that are no proof of a form this version knows. */
export function readOperatorProof(bytes: Uint8Array): OperatorProof | null {
  try {
    const { keyId, challenge, statementId, note, signature, alg, ...rest } = wire.OperatorProof.decode(bytes);
    const issuedMs = whole(rest.issuedMs);
    const isFormed = keyId.length === 32 && challenge.length === 32 && statementId.length === 16;
    if (!isFormed || issuedMs === null || alg !== rawEd25519 || signature.length !== 64) return null;
    if (Buffer.byteLength(note, "utf8") > maxNoteBytes) return null;
    return { keyId, challenge, statementId, issuedMs, note, signature };
  } catch {
    return null;
  }
}

export const verifyOperatorProof = (key: PublicKey, call: OperatorCall, proof: OperatorProof): boolean =>
  key.verify(statement("operator", { ...call, ...proof }), proof.signature);

/** What a host says of itself to whoever wants to sign for it. */
export interface HostChallenge {
  challenge: Uint8Array;
  hostName: string;
  key: PublicKey;
  /** Contexts that run only what is signed. The one part no signature covers: it spares a question, and decides nothing. */
  contexts: readonly string[];
}

/** A serialised OperatorChallenge. */
export function signOperatorChallenge(
  key: SigningKey,
  given: { nodeId: string; tenant: string } & Omit<HostChallenge, "key">,
): Uint8Array {
  const { challenge, contexts } = given;
  // Half a character would not arrive as it was signed.
  const hostName = given.hostName.toWellFormed();
  const signature = key.sign(statement("operatorChallenge", { ...given, hostName, nodePublicKey: key.raw }));
  return wire.OperatorChallenge.encode({
    ...{ challenge, hostName, signature, publicKey: key.raw },
    contexts: [...contexts],
  }).finish();
}

/** Null unless the key that it names has signed it for this node and tenant. Whose key that is, is for the reader to know. */
export function readOperatorChallenge(
  bytes: Uint8Array,
  { nodeId, tenant }: { nodeId: string; tenant: string },
): HostChallenge | null {
  try {
    const { challenge, hostName, signature, publicKey, contexts } = wire.OperatorChallenge.decode(bytes);
    const key = importPublicKey(publicKey);
    if (!key || challenge.length !== 32) return null;
    const said = statement("operatorChallenge", { nodeId, challenge, tenant, hostName, nodePublicKey: publicKey });
    return key.verify(said, signature) ? { challenge, hostName, key, contexts } : null;
  } catch {
    return null;
  }
}

/** Whether the challenge says that calls under `context` need an operator's signature. */
export const wantsSignature = ({ contexts }: HostChallenge, context: string): boolean =>
  contexts.includes(context) || contexts.includes(everyContext);
