/** What a keyset says, as bytes under its root's signature, and what the next one says after a change. */
import { type KeysetKey, keyStateNumber, keyUseNumber, type TrustedKeyset } from "../envelope/keyset.ts";
import type { PublicKey, SigningKey } from "../envelope/public-key.ts";
import { statement, uuidBytes } from "../envelope/statement.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong } from "../wire/whole.ts";

const { ControllerKeySet, KeyAlg, SignedKeySet } = aegis.cluster.v1;

export interface KeysetContent
  extends Pick<TrustedKeyset, "controllerId" | "version" | "keys" | "tlsPins" | "createdMs"> {
  rootKey: PublicKey;
}

/** A serialised SignedKeySet. With `formerRoot` the root changes, and both sign. */
export function signKeyset(content: KeysetContent, root: SigningKey, formerRoot?: SigningKey): Uint8Array {
  const { controllerId, version, keys, tlsPins, createdMs } = content;
  const id = uuidBytes(controllerId);
  if (!id) throw new RangeError(`${controllerId} is not a UUID`);
  const keyset = ControllerKeySet.encode({
    controllerId: id,
    version: toLong(version),
    rootKey: root.raw,
    keys: keys.map(({ key, use, state }) => ({
      ...{ keyId: key.keyId, public: key.raw, alg: KeyAlg.KEY_ALG_ED25519 },
      ...{ use: keyUseNumber(use), state: keyStateNumber(state) },
    })),
    tlsPins: [...tlsPins],
    createdMs: toLong(createdMs),
  }).finish();
  const said = statement("keyset", { controllerId, version, keyset });
  return SignedKeySet.encode({
    keyset,
    signature: (formerRoot ?? root).sign(said),
    ...(formerRoot ? { newRootSignature: root.sign(said) } : {}),
  }).finish();
}

type Change = (keys: readonly KeysetKey[]) => KeysetKey[];

/** The next keyset but for its signature: `change` says what becomes of the keys. */
export const nextContent = (
  { controllerId, version, rootKey, keys, tlsPins }: KeysetContent,
  createdMs: number,
  change: Change,
): KeysetContent => ({ controllerId, version: version + 1, rootKey, keys: change(keys), tlsPins, createdMs });

/** Published, and nothing more: hosts learn of it before it signs. */
export const announced =
  (key: PublicKey, use: KeysetKey["use"]): Change =>
  (keys) => [...keys, { key, use, state: "next" }];

/** The one that signed until now still vouches for what it signed. */
export const activated =
  (key: PublicKey, use: KeysetKey["use"]): Change =>
  (keys) =>
    keys.map((one) => {
      if (one.use !== use) return one;
      if (one.key.kid === key.kid) return { ...one, state: "active" };
      return one.state === "active" ? { ...one, state: "retiring" } : one;
    });

/** Nothing it signed counts any more; `instead` signs at once when it was the one that does. */
export const revoked =
  (key: PublicKey, instead: PublicKey | null): Change =>
  (keys) =>
    keys.flatMap((one) => {
      if (one.key.kid !== key.kid) return [one];
      const gone: KeysetKey = { ...one, state: "revoked" };
      return instead ? [gone, { key: instead, use: one.use, state: "active" }] : [gone];
    });

export const without =
  (gone: ReadonlySet<string>): Change =>
  (keys) =>
    keys.filter(({ key }) => !gone.has(key.kid));
