/** The database of a controller's data directory, which its controller may have open too. */
import { join } from "node:path";
import { openStore } from "../store/open.ts";
import type { Store } from "../store/store.ts";

export const databasePath = (dataDir: string): string => join(dataDir, "controller.db");

/** Opens it for as long as `work` takes. */
export async function onDatabase<T>(dataDir: string, work: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore(databasePath(dataDir));
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}
