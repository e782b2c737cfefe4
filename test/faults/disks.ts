/** Disks that are full, locked or read-only, under either end. */
import { Database } from "bun:sqlite";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { databasePath } from "../../src/controller/database.ts";
import type { Requirement } from "../support/needs.ts";
import { type Fault, holds, struck } from "./fault.ts";
import type { FaultStage } from "./stage.ts";

const mounts: Requirement[] = ["root", "linux", "command:mount"];
const run = (...command: string[]) => {
  const child = Bun.spawnSync(command, { stderr: "pipe" });
  if (child.exitCode !== 0) throw new Error(`${command.join(" ")}: ${child.stderr}`);
};

/** A small disk under `~/.aegis`, which goes with the stage. */
function smallDisk(sizeMb: number) {
  let at = "";
  return {
    path: () => at,
    prepare(home: string) {
      at = join(home, ".aegis");
      mkdirSync(at);
      run("mount", "-t", "tmpfs", "-o", `size=${sizeMb}m,mode=0700`, "tmpfs", at);
    },
    cleanUp() {
      if (at !== "") run("umount", "-l", at);
    },
  };
}

/** Takes every byte that is left. */
function fill(path: string): void {
  for (const bytes of [1024 * 1024, 4096, 1])
    for (let n = 0; ; n++)
      try {
        writeFileSync(join(path, `fill-${bytes}-${n}`), new Uint8Array(bytes));
      } catch {
        break;
      }
}

const free = (path: string) => {
  for (const name of new Bun.Glob("fill-*").scanSync(path)) rmSync(join(path, name), { force: true });
};

const rotates = async ({ host }: FaultStage): Promise<boolean> => (await host.run("edge", "keys", "rotate")).exit === 0;

const dataDir = ({ site }: FaultStage) => join(site.server.home, ".aegis/controller");

/** A database finds room in its own files for a while; then calls fail, and say so. */
async function callsFail(stage: FaultStage, why: RegExp): Promise<void> {
  const padding = "x".repeat(64 * 1024);
  for (let n = 0; n < 100; n++) {
    const result = await stage.call(`true # ${padding}`).result;
    if ("ok" in result && result.ok) continue;
    const words = "error" in result ? result.error : `${result.outcome}: ${result.error_message}`;
    return holds(why.test(words), `it is said why: ${words}`);
  }
  holds(false, "calls fail while nothing can be kept");
}

export const diskFaults: Fault[] = [
  databaseLocked(8, false),
  databaseLocked(2, true),
  {
    ...{ name: "the controller's disk full", needs: mounts, smoke: true },
    run: () => {
      const { prepare, cleanUp, path } = smallDisk(24);
      return struck(
        { site: { prepare }, cleanUp },
        {
          noticed: false,
          async strike(stage) {
            fill(path());
            await callsFail(stage, /full|cannot be read or written|internal|500|503/i);
          },
          lastsMs: 1_500,
          heal: () => free(path()),
          check: () => "calls fail while it lasts",
        },
      );
    },
  },
  {
    ...{ name: "the host's state directory full", needs: mounts, smoke: true },
    run: () => {
      const { prepare, cleanUp, path } = smallDisk(4);
      return struck(
        { host: { prepare }, cleanUp },
        {
          noticed: false,
          async strike(stage) {
            fill(path());
            holds(!(await rotates(stage)), "a rotation fails");
          },
          lastsMs: 1_500,
          heal: () => free(path()),
          async check(stage) {
            holds(await rotates(stage), "a rotation works again");
            return "no rotation meanwhile, one afterwards";
          },
        },
      );
    },
  },
  {
    ...{ name: "the host's state directory read-only", needs: mounts, smoke: true },
    run: () => {
      const { prepare, cleanUp, path } = smallDisk(4);
      return struck(
        { host: { prepare }, cleanUp },
        {
          noticed: false,
          async strike(stage) {
            run("mount", "-o", "remount,ro", path());
            holds(!(await rotates(stage)), "a rotation fails");
          },
          lastsMs: 1_500,
          heal: () => run("mount", "-o", "remount,rw", path()),
        },
      );
    },
  },
];

function databaseLocked(seconds: number, smoke: boolean): Fault {
  return {
    ...{ name: `the controller's database locked for ${seconds} s`, needs: [], smoke },
    run: () => {
      let lock: Database | null = null;
      return struck(
        {},
        {
          noticed: false,
          strike(stage) {
            lock = new Database(databasePath(dataDir(stage)));
            lock.run("BEGIN EXCLUSIVE");
          },
          lastsMs: seconds * 1_000,
          heal() {
            lock?.run("ROLLBACK");
            lock?.close();
          },
        },
      );
    },
  };
}
