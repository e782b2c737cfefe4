/** The way to the controller that the operator's profile names. */
import { type ApiClient, createApiClient } from "../api/client.ts";
import { loadProfile } from "../identity/profiles.ts";
import type { Surroundings } from "./command.ts";

export async function connect({ env, home }: Pick<Surroundings, "env" | "home">): Promise<ApiClient> {
  const { url, token, caPem } = await loadProfile({ env, home });
  return createApiClient({ url, token, caPem });
}
