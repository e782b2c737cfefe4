/** The keys of one controller and of its hosts, drawn for a test. */
import { randomUUID } from "node:crypto";
import type { ControllerKeys } from "../../src/controller/keys.ts";
import { type Claims, signJwt } from "../../src/envelope/jwt.ts";
import { type TrustedKeyset, trustFirst } from "../../src/envelope/keyset.ts";
import { importSigningKey, newSeed, type PublicKey, type SigningKey } from "../../src/envelope/public-key.ts";
import { statement, uuidBytes } from "../../src/envelope/statement.ts";
import { aegis } from "../../src/wire/gen/messages.js";
import { toLong } from "../../src/wire/whole.ts";

const { ControllerKeySet, SignedKeySet, KeyAlg, KeyState, KeyUse } = aegis.cluster.v1;

export interface StrictKeys {
  controllerId: string;
  root: SigningKey;
  keys: ControllerKeys & { callerKey: SigningKey };
  keyset: TrustedKeyset;
}

export const newKey = (): SigningKey => importSigningKey(newSeed());

/** `base64url` of a key's raw bytes, as `cnf.jwk.x` has it. */
export const rawText = (key: PublicKey): string => Buffer.from(key.raw).toString("base64url");

export interface KeysetInput {
  controllerId: string;
  version: number;
  root: SigningKey;
  /** Signs too when the root changes: the one before. */
  formerRoot?: SigningKey;
  command: PublicKey;
  token: PublicKey;
  change?: (keyset: aegis.cluster.v1.ControllerKeySet.$Properties) => void;
}

export function signedKeyset({ controllerId, version, root, formerRoot, command, token, change }: KeysetInput) {
  const entry = (key: PublicKey, use: aegis.cluster.v1.KeyUse) => ({
    keyId: key.keyId,
    use,
    alg: KeyAlg.KEY_ALG_ED25519,
    public: key.raw,
    state: KeyState.KEY_STATE_ACTIVE,
  });
  const content: aegis.cluster.v1.ControllerKeySet.$Properties = {
    controllerId: uuidBytes(controllerId) ?? new Uint8Array(),
    version: toLong(version),
    rootKey: root.raw,
    keys: [entry(command, KeyUse.KEY_USE_COMMAND), entry(token, KeyUse.KEY_USE_TOKEN)],
  };
  change?.(content);
  const keyset = ControllerKeySet.encode(content).finish();
  const said = statement("keyset", { controllerId, version, keyset });
  return SignedKeySet.encode({
    keyset,
    signature: (formerRoot ?? root).sign(said),
    ...(formerRoot ? { newRootSignature: root.sign(said) } : {}),
  }).finish();
}

export function strictKeys({ command = newKey() }: { command?: SigningKey } = {}): StrictKeys {
  const controllerId = randomUUID();
  const [root, token, callerKey] = [newKey(), newKey(), newKey()] as const;
  const outcome = trustFirst(root.keyId, [signedKeyset({ controllerId, version: 1, root, command, token })]);
  if (outcome.kind === "refused") throw new Error(outcome.reason);
  const { keyset } = outcome;
  return { controllerId, root, keyset, keys: { keyset, command, token, caller: () => callerKey, callerKey } };
}

/** A host as enrollment left it. */
export interface HostIdentity {
  nodeId: string;
  tenantId: string;
  nodeKey: SigningKey;
  nodeToken: string;
}

export function hostIdentity(
  { keys, controllerId }: StrictKeys,
  nowMs: number,
  given: Partial<HostIdentity> & { claims?: Partial<Claims<"node">> } = {},
): HostIdentity {
  const { nodeId = randomUUID(), tenantId = "acme", nodeKey = newKey(), claims } = given;
  const iat = Math.floor(nowMs / 1000);
  const token: Claims<"node"> = {
    sub: nodeId,
    role: "edge",
    tid: tenantId,
    cep: "https://controller.example:50056",
    cap_hash: "",
    iss: controllerId,
    aud: "aegis-controller",
    jti: randomUUID(),
    iat,
    exp: iat + 30 * 86_400,
    cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: rawText(nodeKey) } },
    ...claims,
  };
  return { nodeId, tenantId, nodeKey, nodeToken: signJwt("node", token, keys.token) };
}
