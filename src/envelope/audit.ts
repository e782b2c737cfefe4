/**
 * The controller's record of what happened, as a chain: each row's hash covers the row before, and a checkpoint signs the
 * chain's head with the command key. Who can write the database can then neither change nor drop what was sealed.
 */
import type { PublicKey, SigningKey } from "./public-key.ts";
import { type StatementValues, sha256, statement } from "./statement.ts";

/** What comes before the first row. */
export const auditStart: Uint8Array = new Uint8Array(32);

/** A row as it is hashed: absent names are empty, `detail` and `receipt` are exact JSON text. */
export type AuditLink = StatementValues<"auditRow">;

export const auditHash = (link: AuditLink): Uint8Array => sha256(statement("auditRow", link));

export type Checkpoint = StatementValues<"checkpoint">;

export const signCheckpoint = (key: SigningKey, checkpoint: Checkpoint): Uint8Array =>
  key.sign(statement("checkpoint", checkpoint));

export const verifyCheckpoint = (key: PublicKey, checkpoint: Checkpoint, signature: Uint8Array): boolean =>
  key.verify(statement("checkpoint", checkpoint), signature);
