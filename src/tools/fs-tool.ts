/** What all tools on files share: paths are found and held before policy is asked, used as they were judged, and let go. */
import type { z } from "zod";
import { untilAbort } from "../platform/until-abort.ts";
import type { Access } from "../policy/access.ts";
import { quote } from "../policy/quote.ts";
import { inputSchema, parseArgs } from "./parse-args.ts";
import { locate, type Target } from "./path-guard.ts";
import { answered, failed } from "./results.ts";
import type { ErrorKind, PreparedCall, StopReason, Tool, ToolContext, ToolDescriptor, ToolResult } from "./tool.ts";

export type Answer =
  | { kind: "done"; answer: Record<string, unknown> }
  | { kind: "failed"; errorKind: ErrorKind; message: string };

export const done = (answer: Record<string, unknown>): Answer => ({ kind: "done", answer });
export const refused = (message: string): Answer => ({ kind: "failed", errorKind: "invalid_args", message });

/** A path of the arguments and what is done there. */
export interface Touch {
  /** As the caller wrote it. */
  path: string;
  modes: readonly ("read" | "write")[];
  follow: boolean;
}

type Schema<T> = z.ZodType<T> & { shape: Readonly<Record<string, unknown>> };

export interface FsTool<T> extends Pick<ToolDescriptor, "name" | "description" | "readOnly" | "destructive"> {
  schema: Schema<T>;
  touches(args: NoInfer<T>): readonly Touch[];
  /** `targets` are those of `touches`, in its order. What the system refuses may be thrown as it is. */
  run(args: NoInfer<T>, targets: readonly [Target, ...Target[]], context: ToolContext): Promise<Answer>;
}

export function fsTool<T>({ schema, touches, run, ...descriptor }: FsTool<T>): Tool {
  return {
    descriptor: { ...descriptor, inputSchema: inputSchema(schema), fleetCapable: true },
    async prepare(value) {
      const parsed = parseArgs(schema, value);
      if (parsed.kind === "invalid_args") return parsed;
      const wanted = touches(parsed.args);
      const targets: Target[] = [];
      const accesses: Access[] = [];
      const letGo = async () => {
        for (const target of targets.splice(0)) await target.close();
      };
      for (const { path, modes, follow } of wanted) {
        const located = await locate(path, { follow });
        if (located.kind === "refused") {
          await letGo();
          return { kind: "invalid_args", message: `path ${quote(path)} cannot be used: ${located.reason}` };
        }
        targets.push(located.target);
        for (const mode of modes) accesses.push({ kind: "path", mode, path: located.target.path });
      }
      const call: PreparedCall = {
        accesses,
        dispose: letGo,
        run: (context) =>
          answerOf(run(parsed.args, [...targets] as [Target, ...Target[]], context), letGo, wanted, context),
      };
      return { kind: "ready", call };
    },
  };
}

async function answerOf(
  work: Promise<Answer>,
  letGo: () => Promise<void>,
  [first]: readonly Touch[],
  { signal, maxOutputBytes }: ToolContext,
): Promise<ToolResult> {
  /** What is held is let go when the work is over, even if nobody waits for that any more: never while it is in use. */
  async function settle(): Promise<ToolResult> {
    try {
      const answer = await work;
      return told(answer);
    } catch (error) {
      return told(systemRefusal(error, first?.path ?? ""));
    } finally {
      await letGo();
    }
  }
  const told = (answer: Answer) =>
    answer.kind === "done" ? answered(answer.answer, maxOutputBytes) : failed(answer.errorKind, answer.message);
  return (await untilAbort(settle(), signal)) ?? stopped(signal.reason as StopReason);
}

function stopped(reason: StopReason): ToolResult {
  switch (reason.kind) {
    case "timeout":
      return failed("timeout", `stopped after ${reason.afterMs / 1000} s; it may have been done in part`);
    case "cancelled":
      return failed("cancelled", `cancelled (${reason.detail}); it may have been done in part`);
    case "shutdown":
      return failed("edge_disconnected", "this host's daemon is restarting; it may have been done in part");
  }
}

/** What the system said about a path. Anything that is no system error is a fault of ours and thrown on. */
function systemRefusal(error: unknown, path: string): Answer {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === undefined || !/^E[A-Z0-9]+$/.test(code)) throw error;
  const [errorKind, words] = problems[code] ?? ["internal", message];
  return { kind: "failed", errorKind, message: `${quote(path)} ${words}` };
}

/** The same for a target that policy allows but nobody can reach. */
export const obstacleOf = ({ obstacle }: Target, path: string): Answer | null =>
  obstacle === null ? null : systemRefusal({ code: obstacle, message: `cannot be reached: ${obstacle}` }, path);

const problems: Readonly<Record<string, [errorKind: ErrorKind, words: string]>> = {
  ENOENT: ["invalid_args", "does not exist"],
  ENOTDIR: ["invalid_args", "is no directory, or a part of it is none"],
  EISDIR: ["invalid_args", "is a directory"],
  EEXIST: ["invalid_args", "exists already"],
  ENOTEMPTY: ["invalid_args", "is a directory that is not empty"],
  ELOOP: ["invalid_args", "leads in a circle of links, or became a link meanwhile"],
  ENAMETOOLONG: ["invalid_args", "is too long a name"],
  EACCES: ["invalid_args", "is not open to this host's user: permission denied"],
  EPERM: ["invalid_args", "is not open to this host's user: operation not permitted"],
  EROFS: ["invalid_args", "lies on a read-only file system"],
  EXDEV: ["invalid_args", "lies on another file system than its destination: copy it and delete it instead"],
  EINVAL: ["invalid_args", "cannot be used like that: the system calls it invalid"],
  EBUSY: ["invalid_args", "is in use by the system"],
  ETXTBSY: ["invalid_args", "is a program that runs"],
  ESTALE: ["internal", "was exchanged while it was looked at; try again"],
  ENOSPC: ["internal", "cannot be written: no space is left on its file system"],
  EDQUOT: ["internal", "cannot be written: the quota of this host's user is used up"],
  EMFILE: ["internal", "cannot be opened: the daemon has too many files open"],
  ENFILE: ["internal", "cannot be opened: this machine has too many files open"],
  EIO: ["internal", "cannot be read or written: the device reports an error"],
};
