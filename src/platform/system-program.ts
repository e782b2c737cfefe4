/** Runs programs of the system for us, on top of the one file that spawns. */
import type { Clock } from "./clock.ts";
import { type ProcessRunner, systemProcesses } from "./process.ts";
import type { ProgramEnd, RunProgram } from "./run-program.ts";

/** Longest output that is kept of each pipe, in bytes; what follows is read and dropped. */
const maxKeptBytes = 1024 * 1024;

/** Looked up on this process's own PATH; stopped after `timeoutMs` when that is given. */
export function systemProgram(
  clock: Clock,
  processes: ProcessRunner = systemProcesses({ clock, launcher: null }),
): RunProgram {
  return async (command, args, { stdin, env, timeoutMs } = {}) => {
    const failed = (stderr: string): ProgramEnd => ({ status: null, stdout: "", stderr });
    const executable = command.includes("/") || command.includes("\\") ? command : Bun.which(command);
    if (executable === null) return failed(`${command} is not on this machine`);
    const kept = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
    const bytes = { stdout: 0, stderr: 0 };
    const handle = processes.start({
      executable,
      name: command,
      args,
      cwd: process.cwd(),
      env: { ...ownEnvironment(), ...env },
      stdin: stdin === undefined ? null : new TextEncoder().encode(stdin),
      async output(pipe, piece) {
        if (bytes[pipe] < maxKeptBytes) kept[pipe].push(Uint8Array.from(piece));
        bytes[pipe] += piece.length;
      },
    });
    const over = new AbortController();
    if (timeoutMs !== undefined)
      void clock.sleep(timeoutMs, over.signal).then(() => {
        if (!over.signal.aborted) handle.stop();
      });
    const end = await handle.ended.finally(() => over.abort());
    const text = (pipe: "stdout" | "stderr") => Buffer.concat(kept[pipe]).toString("utf8");
    if (end.kind === "exited") return { status: end.code, stdout: text("stdout"), stderr: text("stderr") };
    if (end.kind === "signal")
      return { status: null, stdout: text("stdout"), stderr: `${text("stderr")}${command} was ended by ${end.signal}` };
    return failed(end.message);
  };
}

function ownEnvironment(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
}
