/**
 * Replaces several files of a state directory as one step. Everything is first written aside in full; one rename decides;
 * then each file is put in its place. Whoever finds a decided step that was interrupted ends it, so that no crash leaves
 * a key of one enrollment beside the token of another.
 */
import { randomBytes } from "node:crypto";
import { readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { AegisError } from "../errors.ts";
import {
  makeDirectory,
  PRIVATE_FILE,
  removeFlatFolder,
  syncDirectory,
  writeFileAtomic,
} from "../platform/private-file.ts";

/** A file that ends with `content` and `mode`, or, with null, that ends absent. */
export interface FileChange {
  path: string;
  content: Uint8Array | null;
  mode: number;
}

const decidedName = "enroll.next";
const draftPrefix = "enroll.draft-";
const planName = "plan.json";
const schema = z.array(z.object({ path: z.string(), mode: z.number().int(), content: z.string().nullable() }));

/** All of `changes` or none of them, in their order. The state directory must exist. */
export async function commitFiles(stateDir: string, changes: readonly FileChange[]): Promise<void> {
  await finishCommit(stateDir);
  for (const name of await readdir(stateDir))
    if (name.startsWith(draftPrefix)) await removeFlatFolder(join(stateDir, name));
  const draft = join(stateDir, `${draftPrefix}${randomBytes(6).toString("hex")}`);
  try {
    await makeDirectory(draft);
    const plan: z.infer<typeof schema> = [];
    for (const [index, { path, content, mode }] of changes.entries()) {
      const name = content === null ? null : `${index}`;
      if (name !== null && content !== null) await writeFileAtomic(join(draft, name), content);
      plan.push({ path, mode, content: name });
    }
    await writeFileAtomic(join(draft, planName), JSON.stringify(plan), PRIVATE_FILE);
    await rename(draft, join(stateDir, decidedName));
    await syncDirectory(stateDir);
  } catch (cause) {
    await removeFlatFolder(draft);
    throw new AegisError("internal", `nothing was changed in ${stateDir}: ${AegisError.from(cause).message}`, {
      cause,
    });
  }
  await finishCommit(stateDir);
}

/** Ends what a crash interrupted. False when there was nothing to end. */
export async function finishCommit(stateDir: string): Promise<boolean> {
  const decided = join(stateDir, decidedName);
  const text = await readFile(join(decided, planName), "utf8").catch(() => null);
  const finished = text !== null;
  if (text !== null) {
    for (const { path, mode, content } of planOf(text, decided)) {
      if (content === null) await rm(path, { force: true });
      else await writeFileAtomic(path, await readFile(join(decided, content)), mode);
    }
    // Without its plan the folder means nothing any more, so this is where it ends.
    await rm(join(decided, planName));
  }
  await removeFlatFolder(decided);
  return finished;
}

function planOf(text: string, decided: string): z.infer<typeof schema> {
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new AegisError("config_invalid", `${join(decided, planName)} is damaged`, {
      cause,
      hint: `rm -r ${decided}, then enroll again: aegis edge enroll --force TOKEN`,
    });
  }
}
