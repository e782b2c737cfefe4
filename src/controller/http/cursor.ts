/** Where the next page begins: a position in one list of one tenant, which rows that come and go do not move. */
import { z } from "zod";
import type { Page } from "../../api/types.ts";
import { AegisError } from "../../errors.ts";

const shape = z.tuple([z.string(), z.string(), z.number(), z.string()]);

export interface Position {
  /** Time and id of the last item of the page before. */
  at: number;
  id: string;
}

export const writeCursor = (list: string, tenantId: string, { at, id }: Position): string =>
  Buffer.from(JSON.stringify([list, tenantId, at, id])).toString("base64url");

/** Throws `invalid_request` for one of another list or tenant, and for anything else that is no cursor. */
export function readCursor(list: string, tenantId: string, text: string | undefined): Position | null {
  if (text === undefined) return null;
  try {
    const [ofList, ofTenant, at, id] = shape.parse(JSON.parse(Buffer.from(text, "base64url").toString("utf8")));
    if (ofList === list && ofTenant === tenantId) return { at, id };
  } catch {
    // Said below.
  }
  throw new AegisError("invalid_request", "the cursor is none of this list", {
    hint: "give next_cursor of the page before, or none for the first page",
  });
}

/** The first `limit` of `rows`, which hold one more if there is a page after this one. */
export function onePage<Row>(
  list: string,
  tenantId: string,
  { rows, limit, position }: { rows: readonly Row[]; limit: number; position: (row: Row) => Position },
): Page<Row> {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  const next = last && rows.length > limit ? writeCursor(list, tenantId, position(last)) : null;
  return { items, next_cursor: next };
}
