/** The way to the controller that the operator's profile names. */
import { config as configureZod } from "zod";
import { type ApiClient, createApiClient } from "../api/client.ts";
import { loadProfile } from "../identity/profiles.ts";
import { readTraceContext } from "../platform/trace-context.ts";
import type { Surroundings } from "./command.ts";

// A command reads few answers: compiling their schemas would take longer than it saves.
configureZod({ jitless: true });

/** Ctrl-C ends whatever is asked over it. */
export async function connect({ env, home, stop }: Pick<Surroundings, "env" | "home" | "stop">): Promise<ApiClient> {
  const { url, token, caPem } = await loadProfile({ env, home });
  return createApiClient({ url, token, caPem, signal: stop });
}

/** For a run, which belongs to the trace of TRACEPARENT if there is one, and which Ctrl-C cancels at the controller: that, and how the hosts then stopped, still has to pass. */
export async function connectForRun({ env, home }: Pick<Surroundings, "env" | "home">): Promise<ApiClient> {
  const { url, token, caPem } = await loadProfile({ env, home });
  const trace = readTraceContext(env.TRACEPARENT, env.TRACESTATE);
  return createApiClient({ url, token, caPem, trace });
}
