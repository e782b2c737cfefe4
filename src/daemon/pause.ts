/** The owner's switch: while its file is there, every call is refused. */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../platform/private-file.ts";

const pausePath = (stateDir: string): string => join(stateDir, "run", "paused");

/** Looked at for each call, so that the next one already meets it. */
export const isPaused = (stateDir: string): boolean => existsSync(pausePath(stateDir));

/** False when it was paused already. */
export async function pause(stateDir: string): Promise<boolean> {
  if (isPaused(stateDir)) return false;
  await writeFileAtomic(pausePath(stateDir), "");
  return true;
}

/** False when it was not paused. */
export async function resume(stateDir: string): Promise<boolean> {
  if (!isPaused(stateDir)) return false;
  await rm(pausePath(stateDir), { force: true });
  return true;
}
