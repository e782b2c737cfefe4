/** What a call will touch, stated by its tool before anything runs. */
export type Access =
  /** A real path: absolute, without `.`, `..`, doubled or trailing separators, and with no symbolic link left in it. */
  | { kind: "path"; mode: "read" | "write"; path: string }
  /**
   * `executable` is resolved: an absolute path with no symbolic link left in it; `name` is what the caller wrote. When
   * `name` holds no separator, `executable` is what the host's fixed PATH says it is. A working directory that the caller
   * names is a path access of its own.
   */
  | { kind: "command"; executable: string; name: string; args: readonly string[] }
  /** A line handed to a shell. */
  | { kind: "shell"; line: string }
  /** A variable the caller sets for the process. */
  | { kind: "env"; name: string }
  | { kind: "host"; host: string; port: number };
