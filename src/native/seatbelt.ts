/** The rules that keep tools away from the daemon's identity on macOS, in the language of sandbox-exec. */
import { dirname } from "node:path";
import { AegisError } from "../errors.ts";

export const sandboxExec = "/usr/bin/sandbox-exec";

export interface SeatbeltPaths {
  /** Absolute real paths that tools may neither read nor change. */
  protectedPaths: readonly string[];
  /** Absolute real paths that tools may read and run, not change. */
  readOnlyPaths: readonly string[];
}

/**
 * The later of two rules that fit decides. Paths are compared as the kernel resolves them, so each must be given by its real
 * one. Throws `unprocessable` for a path that the language cannot hold.
 */
export function seatbeltProfile({ protectedPaths, readOnlyPaths }: SeatbeltPaths): string {
  const all = [...protectedPaths, ...readOnlyPaths];
  return `(version 1)
(allow default)
; The daemon's key, token, settings and logs. That they are there may be known.
${rule("deny file*", "subpath", protectedPaths)}
${rule("allow file-read-metadata", "literal", protectedPaths)}
; Its program and what starts it may be read and run.
${rule("deny file-write* file-link", "subpath", readOnlyPaths)}
; A folder on the way that got another name would take what lies in it out of these rules.
${rule("deny file-write-unlink", "literal", ancestors(all))}
; The daemon itself: no signal, no look into its memory. What came from the same tool may be signalled and traced.
(deny signal)
(allow signal (target same-sandbox))
(deny process-info*)
(allow process-info* (target same-sandbox))
(deny mach-priv-task-port)
(allow mach-priv-task-port (target same-sandbox))
; Whoever starts programs for others would start them outside of all this.
(deny job-creation)
(deny appleevent-send)
(deny mach-lookup
  (global-name "com.apple.coreservices.launchservicesd")
  (global-name "com.apple.coreservices.quarantine-resolver")
  (global-name "com.apple.xpc.smd"))
`;
}

/** What stands after sandbox-exec's own path to run `command`, an absolute path, under a profile. */
export function seatbeltArgs(
  profile: string,
  { command, name, args }: { command: string; name: string; args: readonly string[] },
): string[] {
  const start = ["-p", profile, "--"];
  // A file that holds many programs goes by argv[0], which sandbox-exec takes from the path.
  const isOther = baseName(name) !== baseName(command);
  return isOther
    ? [...start, "/bin/bash", "-c", 'exec -a "$0" "$@"', name, command, ...args]
    : [...start, command, ...args];
}

const baseName = (path: string): string => path.slice(path.lastIndexOf("/") + 1);

/** Without a path there is no rule: it would hold for every path. */
function rule(words: string, kind: "subpath" | "literal", paths: readonly string[]): string {
  const filters = paths.map((path) => `\n  (${kind} ${quoted(path)})`);
  return filters.length === 0 ? "" : `(${words}${filters.join("")})`;
}

/** A string of the language: only quotes and backslashes mean something in it. */
export function quoted(path: string): string {
  if (!path.startsWith("/") || !path.isWellFormed() || /\p{Cc}/u.test(path))
    throw new AegisError("unprocessable", `${JSON.stringify(path)} cannot stand in a profile of sandbox-exec`, {
      hint: "use an absolute path without control characters",
    });
  return `"${path.replace(/["\\]/g, "\\$&")}"`;
}

/** Every folder on the way to one of `paths`, but for the root. */
function ancestors(paths: readonly string[]): string[] {
  const found = new Set<string>();
  for (const path of paths) for (let at = dirname(path); at !== dirname(at); at = dirname(at)) found.add(at);
  return [...found].sort();
}
