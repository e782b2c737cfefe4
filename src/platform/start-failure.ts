/** Why a program could not be started, in words for whoever asked for it. */
import { statSync } from "node:fs";
import { constants } from "node:os";

export interface StartFailure {
  kind: "not_started";
  reason: "not_found" | "not_permitted" | "no_program" | "no_resources" | "failed";
  message: string;
}

interface Asked {
  executable: string;
  cwd: string;
}

type Reason = StartFailure["reason"];
const reasons: Readonly<Record<string, [reason: Reason, words: string]>> = {
  ENOENT: ["not_found", "no such file, or its interpreter is missing"],
  ENOTDIR: ["not_found", "a part of its path is no directory"],
  EACCES: ["not_permitted", "permission denied"],
  EPERM: ["not_permitted", "operation not permitted"],
  ENOEXEC: ["no_program", "this machine cannot run it; a script needs a first line such as #!/bin/sh"],
  ETXTBSY: ["no_program", "it is being written"],
  EXDEV: ["failed", "it cannot be confined, because the daemon runs in a plain chroot, which hides what is mounted"],
  E2BIG: ["no_resources", "its arguments and environment are too long"],
  EAGAIN: ["no_resources", "too many processes"],
  ENOMEM: ["no_resources", "not enough memory"],
  EMFILE: ["no_resources", "too many open files"],
  ENFILE: ["no_resources", "too many open files on this machine"],
};

/** `errno` is the number that the system gave. */
export function startFailure(errno: number, asked: Asked): StartFailure {
  const code = Object.entries(constants.errno).find(([, number]) => number === errno)?.[0] ?? "";
  return describe(code, `error ${errno}`, asked);
}

export function startFailureOf(error: unknown, asked: Asked): StartFailure {
  const { code = "", message } = error as NodeJS.ErrnoException;
  return describe(code, message, asked);
}

/** The system says ENOENT for a missing working directory too. */
function describe(code: string, message: string, { executable, cwd }: Asked): StartFailure {
  if (!statSync(cwd, { throwIfNoEntry: false })?.isDirectory())
    return { kind: "not_started", reason: "not_found", message: `the working directory ${cwd} does not exist` };
  const [reason, words] = reasons[code] ?? ["failed", message];
  return { kind: "not_started", reason, message: `${executable} cannot be started: ${words}` };
}
