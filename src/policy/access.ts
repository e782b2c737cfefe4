/** What a call will touch, stated by its tool before anything runs. */
export type Access =
  | { kind: "path"; mode: "read" | "write"; path: string }
  /** `executable` is resolved: an absolute path with no symbolic link left in it; `name` is what the caller wrote. */
  | { kind: "command"; executable: string; name: string; args: readonly string[] }
  /** A line handed to a shell. */
  | { kind: "shell"; line: string }
  /** A variable the caller sets for the process. */
  | { kind: "env"; name: string }
  | { kind: "host"; host: string; port: number };
