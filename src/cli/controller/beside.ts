/** Commands that work on a controller's data directory, beside the controller that may be running on it. */
import { loadControllerConfig } from "../../config/controller.ts";
import { onDatabase } from "../../controller/database.ts";
import type { Store } from "../../store/store.ts";

/** Opens the database for as long as `use` takes. Where no controller was made there is an error, and no new database. */
export async function withStore<T>(dataDir: string, use: (store: Store) => Promise<T>): Promise<T> {
  await loadControllerConfig(dataDir);
  return await onDatabase(dataDir, use);
}
