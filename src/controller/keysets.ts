/** Which of the controller's keysets a host needs that knows an earlier one. */
import type { TrustedKeyset } from "../envelope/keyset.ts";
import type { KeysetRow, Queries } from "../store/store.ts";

/**
 * Every change of root after `version`, then the newest that is in use here: serialised SignedKeySets, each vouched for by
 * the one before.
 */
export async function keysetsSince(
  queries: Queries,
  version: number,
  newest: Pick<TrustedKeyset, "version" | "signed">,
): Promise<Uint8Array[]> {
  // With the host's own: whether the next one changes the root shows only beside it.
  const rows = await queries.keysetsAfter(version - 1);
  const changes = rows.filter((row, index) => row.version < newest.version && changesRoot(row, rows[index - 1]));
  return [...changes.map(({ signed }) => signed), newest.signed];
}

const changesRoot = (row: KeysetRow, before: KeysetRow | undefined): boolean =>
  before !== undefined && !Buffer.from(row.rootKey).equals(before.rootKey);
