/** RunProgram for tests that want real programs. */
import type { RunProgram } from "../../src/platform/run-program.ts";

export const runProgram: RunProgram = async (command, args, options = {}) => {
  try {
    const child = Bun.spawn([command, ...args], {
      env: { ...process.env, ...options.env },
      stdin: options.stdin === undefined ? "ignore" : new TextEncoder().encode(options.stdin),
      stdout: "pipe",
      stderr: "pipe",
      ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs }),
    });
    const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    await child.exited;
    return { status: child.signalCode === null ? child.exitCode : null, stdout, stderr };
  } catch (error) {
    return { status: null, stdout: "", stderr: (error as Error).message };
  }
};
