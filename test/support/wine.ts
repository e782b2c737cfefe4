/** Windows as far as wine has it: one prefix a test, and never a pipe on wine's output, which wine does not close. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Wine {
  /** Drive C as a folder of this machine. */
  readonly drive: string;
  readonly env: Record<string, string>;
  /** Runs to its end, in `cwd` if stated; both outputs in one text. */
  run(command: readonly string[], timeoutMs?: number, cwd?: string): Promise<{ exit: number; said: string }>;
  /** Starts and goes on; `said` reads what it wrote so far. */
  start(command: readonly string[]): { said(): string; says(text: string, timeoutMs?: number): Promise<void> };
  /** Kills, without a word, the programs of this prefix whose command line matches; how many there were. */
  kill(commandLine: RegExp): number;
  destroy(): void;
}

const source = join(import.meta.dir, "../release/process-prng.c");

export async function wine(): Promise<Wine> {
  const root = mkdtempSync(join(tmpdir(), "aegis-wine-"));
  const env = {
    PATH: process.env.PATH ?? "",
    HOME: root,
    WINEPREFIX: join(root, "prefix"),
    WINEDEBUG: "-all",
    WINEDLLOVERRIDES: "mscoree,mshtml=",
  };
  let count = 0;
  const shell = (command: readonly string[], timeoutMs: number, file: string, cwd = root) => {
    const words = ["timeout", "-k", "5", String(Math.ceil(timeoutMs / 1000)), ...command].map(
      (word) => `'${word.replace(/'/g, "'\\''")}'`,
    );
    return Bun.spawn(["sh", "-c", `${words.join(" ")} > '${file}' 2>&1 < /dev/null`], {
      env,
      cwd,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });
  };
  const newFile = () => join(root, `said-${++count}`);
  const read = (file: string) => (existsSync(file) ? readFileSync(file, "utf8") : "");
  const run: Wine["run"] = async (command, timeoutMs = 60_000, cwd = root) => {
    const file = newFile();
    const exit = await shell(["wine", ...command], timeoutMs, file, cwd).exited;
    return { exit, said: read(file).replaceAll("\r\n", "\n") };
  };
  await shell(["wineboot", "-i"], 120_000, newFile()).exited;
  // The first start leaves a service manager behind; with a second one beside it every other question goes astray.
  Bun.spawnSync(["wineserver", "-k"], { env, timeout: 20_000 });
  Bun.spawnSync(["wineserver", "-w"], { env, timeout: 20_000 });
  const system = join(env.WINEPREFIX, "drive_c/windows/system32");
  const library = join(system, "bcryptprimitives.dll");
  if (!existsSync(library)) {
    const built = Bun.spawnSync(["x86_64-w64-mingw32-gcc", "-shared", "-o", library, source, "-ladvapi32"], {
      stderr: "pipe",
    });
    if (built.exitCode !== 0) throw new Error(`process-prng.c: ${built.stderr}`);
  }
  return {
    drive: join(env.WINEPREFIX, "drive_c"),
    env,
    run,
    start(command) {
      const file = newFile();
      const child = shell(["wine", ...command], 300_000, file);
      return {
        said: () => read(file),
        async says(text, timeoutMs = 30_000) {
          const limit = performance.now() + timeoutMs;
          while (!read(file).includes(text)) {
            if (performance.now() > limit || child.exitCode !== null)
              throw new Error(`it never said ${text}:\n${read(file)}`);
            await Bun.sleep(100);
          }
        },
      };
    },
    kill(commandLine) {
      const mine = `WINEPREFIX=${env.WINEPREFIX}\0`;
      const found = readdirSync("/proc").filter((pid) => {
        if (!/^\d+$/.test(pid)) return false;
        try {
          const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
          return commandLine.test(command) && readFileSync(`/proc/${pid}/environ`, "utf8").includes(mine);
        } catch {
          return false; // it ended meanwhile
        }
      });
      for (const pid of found) process.kill(Number(pid), "SIGKILL");
      return found.length;
    },
    destroy() {
      Bun.spawnSync(["wineserver", "-k"], { env, timeout: 20_000 });
      rmSync(root, { recursive: true, force: true });
    },
  };
}
