/** A program of the system run to its end, for what we ask of it ourselves; never for a caller's command. */

export interface ProgramEnd {
  /** Exit status; null when a signal ended it or it could not be started, which `stderr` then says. */
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Never rejects. `stdin` is given as text; the environment is this process's own with `env` laid over it. */
export type RunProgram = (
  command: string,
  args: readonly string[],
  options?: { stdin?: string; env?: Readonly<Record<string, string>>; timeoutMs?: number },
) => Promise<ProgramEnd>;
