/** Loads what signs a run only where this operator has a key: most have none, and a command should not wait for it. */
import { existsSync } from "node:fs";
import type { ApiClient } from "../api/client.ts";
import type { InvokeRequest } from "../api/types.ts";
import { operatorKeyPath } from "../identity/operator-key-path.ts";
import type { Surroundings } from "./command.ts";
import type { Signing } from "./signing.ts";

/** Null when nothing is to be signed. As `prepareSigning`. */
export async function signingOf(
  client: Pick<ApiClient, "preview" | "whoami" | "host">,
  request: InvokeRequest,
  given: Surroundings,
  yes: boolean,
): Promise<Signing | null> {
  if (!existsSync(operatorKeyPath(given))) return null;
  const { prepareSigning } = await import("./signing.ts");
  return await prepareSigning(client, request, given, yes);
}
