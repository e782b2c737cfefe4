/** The proofs that make a host and a controller known to each other, both ways, before either keeps anything. */
import type { PublicKey, SigningKey } from "./public-key.ts";
import { type StatementValues, statement } from "./statement.ts";

/** The only nonce length a client signs raw: anything else could be somebody's statement. */
export const nonceBytes = 32;

export type EnrollProof = StatementValues<"enrollProof">;
export type EnrollGrant = StatementValues<"enrollGrant">;

export const signEnrollProof = (key: SigningKey, values: EnrollProof): Uint8Array =>
  key.sign(statement("enrollProof", values));
export const verifyEnrollProof = (key: PublicKey, values: EnrollProof, signature: Uint8Array): boolean =>
  key.verify(statement("enrollProof", values), signature);

export const signEnrollGrant = (key: SigningKey, values: EnrollGrant): Uint8Array =>
  key.sign(statement("enrollGrant", values));
export const verifyEnrollGrant = (key: PublicKey, values: EnrollGrant, signature: Uint8Array): boolean =>
  key.verify(statement("enrollGrant", values), signature);

/** Made by the key a node had: that its new key is its own doing. */
export type RekeyProof = StatementValues<"rekeyProof">;

export const signRekeyProof = (oldKey: SigningKey, values: RekeyProof): Uint8Array =>
  oldKey.sign(statement("rekeyProof", values));
export const verifyRekeyProof = (oldKey: PublicKey, values: RekeyProof, signature: Uint8Array): boolean =>
  oldKey.verify(statement("rekeyProof", values), signature);
