/**
 * What this host's owner asks of the running daemon, through files in its state directory and never a port: a request is
 * put into `run/requests`, and its answer into `run/answers`.
 */
import { randomUUID } from "node:crypto";
import { lstat, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { AegisError, isErrorCode } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { type FolderWatch, watchFolder } from "../platform/folder-watch.ts";
import type { Log } from "../platform/log.ts";
import { makeDirectory, writeFileAtomic } from "../platform/private-file.ts";
import { processStart } from "./status.ts";

const asker = z.object({ pid: z.number().int().positive(), started: z.string() });

const requestSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("rotate_keys"), keepOldMs: z.number().nonnegative(), force: z.boolean(), asker }),
  z.strictObject({ kind: z.literal("refresh_token"), force: z.boolean(), asker }),
  /** Write down how things are now: what `edge status` reads is else as old as the last heartbeat. */
  z.strictObject({ kind: z.literal("tell_status"), asker }),
]);

type WithAsker = z.infer<typeof requestSchema>;
/** What can be asked for. */
export type OwnerRequest = WithAsker extends infer R ? (R extends unknown ? Omit<R, "asker"> : never) : never;

const answerSchema = z.discriminatedUnion("ok", [
  z.object({ ok: z.literal(true), result: z.unknown() }),
  z.object({ ok: z.literal(false), code: z.string(), message: z.string(), hint: z.string().optional() }),
]);
type Answer = z.infer<typeof answerSchema>;

/** Longest request in bytes. */
const maxRequestBytes = 4 * 1024;
/** Looked at this often where no change is told. */
const lookEveryMs = 5_000;
/** How often an answer is looked for, and whether the daemon still lives. */
const askEveryMs = 50;

const foldersIn = (stateDir: string) => ({
  requests: join(stateDir, "run", "requests"),
  answers: join(stateDir, "run", "answers"),
});

const requestName = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json$/;

export interface ServeOptions {
  stateDir: string;
  handle(request: OwnerRequest): Promise<unknown>;
  clock: Clock;
  log: Log;
  /** Ends it. */
  signal: AbortSignal;
}

/** Answers each request once, one at a time. Whoever asked and is gone gets no answer, and nothing is done. */
export async function serveRequests({ stateDir, handle, clock, log, signal }: ServeOptions): Promise<void> {
  const { requests, answers } = foldersIn(stateDir);
  let watch: FolderWatch | null = null;
  try {
    for (const folder of [requests, answers]) await makeDirectory(folder);
    // Answers to an earlier daemon's askers: nobody waits for them any more.
    for (const name of await readdir(answers)) await rm(join(answers, name), { force: true });
    watch = watchFolder(requests);
    while (!signal.aborted) {
      for (const name of await readdir(requests)) {
        if (signal.aborted) return;
        if (requestName.test(name)) await answer(name);
      }
      const patience = new AbortController();
      const either = AbortSignal.any([patience.signal, signal]);
      await Promise.race([watch.changed(either), clock.sleep(lookEveryMs, either)]);
      patience.abort();
    }
  } catch (error) {
    log.error("requests_not_served", { error: AegisError.from(error) });
  } finally {
    watch?.close();
  }

  async function answer(name: string): Promise<void> {
    const request = await taken(join(requests, name));
    if (!request) return;
    const { asker, ...asked } = request;
    if ((await processStart(asker.pid)) !== asker.started) return;
    log[asked.kind === "tell_status" ? "debug" : "info"]("owner_request", { kind: asked.kind });
    const said = await handle(asked).then(
      (result): Answer => ({ ok: true, result }),
      (thrown: unknown): Answer => {
        const { code, message, hint } = AegisError.from(thrown);
        return { ok: false, code, message, ...(hint === undefined ? {} : { hint }) };
      },
    );
    await writeFileAtomic(join(answers, name), JSON.stringify(said)).catch((error: unknown) =>
      log.error("answer_not_written", { error: AegisError.from(error) }),
    );
  }
}

/** The request, which is gone from then on, so that no crash makes it be done twice. Null for what is none. */
async function taken(path: string): Promise<WithAsker | null> {
  try {
    const found = await lstat(path);
    const text = found.isFile() && found.size <= maxRequestBytes ? await readFile(path, "utf8") : "";
    await rm(path, { force: true });
    return requestSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

export interface AskOptions {
  stateDir: string;
  clock: Clock;
  signal: AbortSignal;
  /** Whether the daemon that is asked is still there. */
  alive(): Promise<boolean>;
}

/** Asks the running daemon, and waits for its answer for as long as it lives. */
export async function askDaemon(asked: OwnerRequest, options: AskOptions): Promise<unknown> {
  const { stateDir, clock, signal, alive } = options;
  const { requests, answers } = foldersIn(stateDir);
  for (const folder of [requests, answers]) await makeDirectory(folder);
  const name = `${randomUUID()}.json`;
  const started = (await processStart(process.pid)) ?? "unknown";
  const request: WithAsker = { ...asked, asker: { pid: process.pid, started } };
  await writeFileAtomic(join(requests, name), JSON.stringify(request));
  try {
    for (;;) {
      const text = await readFile(join(answers, name), "utf8").catch(() => null);
      if (text !== null) return answered(text);
      if (signal.aborted) throw new AegisError("cancelled", "stopped waiting for the daemon's answer");
      if (!(await alive()))
        throw new AegisError("unavailable", "the daemon ended before it answered", {
          hint: "what it had begun is finished when it runs again: aegis edge status",
        });
      await clock.sleep(askEveryMs, signal);
    }
  } finally {
    await rm(join(requests, name), { force: true });
    await rm(join(answers, name), { force: true });
  }
}

function answered(text: string): unknown {
  const answer = answerSchema.parse(JSON.parse(text));
  if (answer.ok) return answer.result;
  const { code, message, hint } = answer;
  throw new AegisError(isErrorCode(code) ? code : "internal", message, hint === undefined ? {} : { hint });
}
