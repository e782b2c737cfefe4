import { type Subprocess, which } from "bun";

/** A shell that takes one block after the other, as a person types them. */
export interface TerminalShell {
  /** Resolves with what the block printed: when it is over, or as soon as `ready` shows that it goes on for good. */
  type(block: string, ready?: RegExp): Promise<string>;
}

export interface Terminals {
  open(name: string): TerminalShell;
  /** Ends every shell with all that runs in it. */
  close(): Promise<void>;
}

/** Where the ports of a walkthrough are free for sure: a network of our own, if this user may have one. */
function privateNetwork(): { prefix: string[]; holder: Subprocess | null } {
  if (!which("unshare") || !which("nsenter") || !which("ip")) return { prefix: [], holder: null };
  const user = process.getuid?.() === 0 ? [] : ["-r"];
  const holder = Bun.spawn(["unshare", "-n", ...user, "sh", "-c", "ip link set lo up && echo up && exec sleep 86400"], {
    stdout: "pipe",
    stderr: "ignore",
  });
  return {
    prefix: ["nsenter", "-t", String(holder.pid), "-n", ...(user.length > 0 ? ["-U", "--preserve-credentials"] : [])],
    holder,
  };
}

export async function terminals(env: Record<string, string>, cwd: string): Promise<Terminals> {
  let { prefix, holder } = privateNetwork();
  if (holder) {
    const { value } = await (holder.stdout as ReadableStream<Uint8Array>).getReader().read();
    if (Buffer.from(value ?? []).toString() !== "up\n") [prefix, holder] = [[], null];
  }
  const shells: Subprocess[] = [];
  return {
    open(name) {
      // One pipe for both, as on a terminal: what is said comes in the order in which it was said.
      const shell = Bun.spawn([...prefix, "sh", "-c", "exec sh 2>&1"], {
        cwd,
        env,
        stdin: "pipe",
        stdout: "pipe",
        stderr: "ignore",
        detached: true,
      });
      shells.push(shell);
      let printed = "";
      let over = false;
      let look = () => {};
      const read = async (stream: ReadableStream<Uint8Array>) => {
        for await (const chunk of stream) {
          printed += Buffer.from(chunk).toString();
          look();
        }
      };
      void read(shell.stdout).then(() => {
        over = true;
        look();
      });
      let count = 0;
      return {
        type(block, ready) {
          const mark = `[${name} block ${++count} is over]`;
          printed = "";
          shell.stdin.write(`set -e\n${block}\nset +e\necho '${mark}'\n`);
          void shell.stdin.flush();
          return new Promise((resolve, reject) => {
            look = () => {
              const done = printed.includes(mark);
              if (done && ready) reject(new Error(`${name} was expected to go on:\n${printed}`));
              else if (done || ready?.test(printed)) resolve(printed.replace(`${mark}\n`, ""));
              else if (over) reject(new Error(`${name} failed in:\n${block}\n\nit printed:\n${printed}`));
            };
            look();
          });
        },
      };
    },
    async close() {
      for (const { pid, exitCode } of shells)
        if (exitCode === null)
          try {
            process.kill(-pid, "SIGTERM");
          } catch {
            // it ended meanwhile
          }
      await Promise.all(shells.map(({ exited }) => exited));
      holder?.kill();
    },
  };
}
