/** How long a command takes before it has done anything: beside an empty Bun executable and Node. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, hardening } from "../../install/build.ts";
import { executable } from "../support/aegis.ts";
import { type Bench, shown, spread, timed } from "./bench.ts";

const startup: Bench = async ({ quick }) => {
  const rounds = quick ? 3 : 40;
  const folder = mkdtempSync(join(tmpdir(), "aegis-bench-"));
  try {
    const entry = join(folder, "empty.ts");
    writeFileSync(entry, "export {};\n");
    const empty = join(folder, "empty");
    compile({ entry, outfile: empty, bunTarget: `bun-${process.platform}-${process.arch}`, define: {}, hardening });
    const env = { HOME: folder, PATH: process.env.PATH ?? "" };
    const of = async (command: string[]) =>
      spread(
        await timed(rounds, () => Bun.spawnSync(command, { env, cwd: folder, stdout: "ignore", stderr: "ignore" })),
      );
    const base = await of([empty]);
    const commands: [string, string[]][] = [
      ["empty Bun executable", [empty]],
      ["aegis --version", [executable, "--version"]],
      ["aegis --help", [executable, "--help"]],
      ["aegis edge status (no daemon)", [executable, "edge", "status"]],
      ["node -e 0", ["node", "-e", "0"]],
    ];
    const rows: string[][] = [];
    for (const [name, command] of commands) {
      const one = command[0] === empty ? base : await of(command);
      rows.push([name, shown(one), (one.median / base.median).toFixed(2)]);
    }
    return [
      {
        title: "Start-up",
        columns: ["command", "ms: median (min-max)", "x empty"],
        rows,
        notes: [`${rounds} runs each after 5 that do not count, the whole life of the process`],
      },
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

export default startup;
