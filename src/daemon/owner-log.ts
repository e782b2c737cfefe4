/** The owner's own record of what was asked of this host and what became of it, kept where no controller can change it. */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, mkdirSync, openSync, readSync, renameSync, rmSync, writeSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { PRIVATE_DIR, PRIVATE_FILE } from "../platform/private-file.ts";
import type { Invoked, Proven } from "./invoke.ts";
import type { ReceivedCall } from "./received.ts";

/** So many files of so many bytes; beyond that the oldest goes. About 40 000 calls. */
export const ownerLogLimits = { fileBytes: 4 * 1024 * 1024, files: 4 };

/** Characters kept of the arguments, of an error, and of a name that somebody else chose. */
const maxArgsChars = 400;
const maxErrorChars = 300;
const maxNameChars = 128;

export interface OwnerLog {
  /** On disk before it returns: what a call does to the daemon cannot undo that it began. */
  begun(call: ReceivedCall, proven: Proven): void;
  /** Also a call that was refused and never began. */
  answered(call: ReceivedCall, invoked: Invoked, durationMs: number): void;
  /** A call whose fields could not even be read. */
  unreadable(commandId: string, reason: string): void;
}

const text = z.string();
const identity = {
  at: text,
  command_id: text,
  tool: text,
  context: text,
  /** SHA-256 of the exact bytes of the arguments, as the caller's signature covers them. */
  args_sha256: text,
  /** Their beginning. */
  args: text,
  /** Null until it is proven. */
  caller: text.nullable(),
  operator: text.nullable(),
  /** What policy went by; null where it was not asked. */
  rule: text.nullable(),
};
const count = z.number().nonnegative();
const lineSchema = z.discriminatedUnion("event", [
  z.object({ event: z.literal("daemon_started"), at: text, version: text }),
  z.object({ event: z.literal("begun"), ...identity }),
  z.object({
    event: z.enum(["ended", "refused"]),
    ...identity,
    ok: z.boolean(),
    error_kind: text.nullable(),
    error: text.nullable(),
    exit_code: z.number().int(),
    signal: text.nullable(),
    job_id: text.nullable(),
    duration_ms: count,
    stdout_bytes: count,
    stderr_bytes: count,
  }),
  z.object({ event: z.literal("unreadable"), at: text, command_id: text, error: text }),
  z.object({ event: z.literal("lost"), at: text, lines: count }),
]);
export type OwnerLogLine = z.infer<typeof lineSchema>;

/** The newest first. */
const paths = (stateDir: string): string[] =>
  Array.from({ length: ownerLogLimits.files }, (_, n) =>
    join(stateDir, "run", "log", n === 0 ? "calls.jsonl" : `calls.${n}.jsonl`),
  );

/** Lines are never rewritten. A disk that takes none stops no call: the loss is told here and in the daemon's log. */
export function openOwnerLog(stateDir: string, options: { clock: Clock; log: Log; version: string }): OwnerLog {
  const { clock, log, version } = options;
  const files = paths(stateDir);
  const [newest = ""] = files;
  let lost = 0;
  const now = () => new Date(clock.now()).toISOString();

  function rotate(): void {
    for (let n = files.length - 1; n > 0; n--) {
      const [from = "", to = ""] = [files[n - 1], files[n]];
      rmSync(to, { force: true });
      // A gap in the row, which somebody made, is no reason to stop.
      try {
        renameSync(from, to);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      }
    }
  }

  function append(line: string): void {
    const bytes = Buffer.from(`${line}\n`);
    mkdirSync(dirname(newest), { recursive: true, mode: PRIVATE_DIR });
    // Opened each time, so that an owner may move it away.
    let file = openSync(newest, "a+", PRIVATE_FILE);
    try {
      const { size } = fstatSync(file);
      if (size > 0 && size + bytes.length > ownerLogLimits.fileBytes) {
        closeSync(file);
        file = -1;
        rotate();
        file = openSync(newest, "a+", PRIVATE_FILE);
      } else if (size > 0 && !endsLine(file, size)) writeSync(file, "\n"); // a crash or a full disk cut it off
      if (writeSync(file, bytes) < bytes.length) throw new Error("the disk took a part of it");
    } finally {
      if (file >= 0) closeSync(file);
    }
  }

  function write(line: OwnerLogLine): void {
    try {
      if (lost > 0) {
        append(JSON.stringify({ event: "lost", at: now(), lines: lost } satisfies OwnerLogLine));
        lost = 0;
      }
      append(JSON.stringify(line));
    } catch (error) {
      if (lost === 0) log.error("owner_log_not_written", { path: newest, error });
      lost++;
    }
  }

  write({ event: "daemon_started", at: now(), version });
  return {
    begun: (call, proven) => write({ event: "begun", ...identityOf(call, proven, now()) }),
    answered(call, { result, started, ...proven }, durationMs) {
      write({
        event: started ? "ended" : "refused",
        ...identityOf(call, proven, now()),
        ok: result.ok,
        error_kind: result.errorKind ?? null,
        error: result.errorMessage === undefined ? null : cut(result.errorMessage, maxErrorChars),
        exit_code: result.exitCode,
        signal: result.signal ?? null,
        job_id: result.jobId ?? null,
        duration_ms: Math.round(durationMs),
        stdout_bytes: result.stdout.bytes,
        stderr_bytes: result.stderr.bytes,
      });
    },
    unreadable: (commandId, reason) =>
      write({ event: "unreadable", at: now(), command_id: commandId, error: cut(reason, maxErrorChars) }),
  };
}

const identityOf = (call: ReceivedCall, { caller, operator, rule }: Proven, at: string) => ({
  at,
  command_id: call.commandId,
  tool: cut(call.tool, maxNameChars),
  context: cut(call.context, maxNameChars),
  args_sha256: createHash("sha256").update(call.argsJson).digest("hex"),
  args: cut(Buffer.from(call.argsJson.subarray(0, 4 * maxArgsChars)).toString("utf8"), maxArgsChars),
  caller: caller ? cut(caller.sub, maxNameChars) : null,
  operator: operator ?? null,
  rule: rule ?? null,
});

const cut = (text: string, chars: number): string => (text.length > chars ? `${text.slice(0, chars)}...` : text);

function endsLine(file: number, size: number): boolean {
  const last = Buffer.alloc(1);
  readSync(file, last, 0, 1, size - 1);
  return last[0] === 0x0a;
}

/** Everything that is kept, the oldest first, and how many lines cannot be read. */
export async function readOwnerLog(stateDir: string): Promise<{ lines: OwnerLogLine[]; damaged: number }> {
  const lines: OwnerLogLine[] = [];
  let damaged = 0;
  for (const path of paths(stateDir).toReversed()) {
    const content = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return "";
      throw new AegisError("config_invalid", `cannot read ${path}: ${cause.message}`, { cause });
    });
    for (const one of content.split("\n")) {
      if (one === "") continue;
      const line = parsed(one);
      if (line) lines.push(line);
      else damaged++;
    }
  }
  return { lines, damaged };
}

function parsed(line: string): OwnerLogLine | null {
  try {
    return lineSchema.parse(JSON.parse(line));
  } catch {
    return null;
  }
}
