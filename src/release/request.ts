/** How a sandboxed daemon asks for an update of itself, and learns what became of it: two small files in its state directory. */
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { PRIVATE_DIR, PUBLIC_FILE, writeFileAtomic } from "../platform/private-file.ts";

const requestSchema = z.object({ id: z.uuid(), version: z.string().nullable() });
const resultSchema = z.object({
  id: z.uuid(),
  ok: z.boolean(),
  /** The version that runs afterwards. */
  version: z.string(),
  /** What happened, for people. */
  message: z.string(),
  at: z.string(),
});

export type UpdateRequest = z.infer<typeof requestSchema>;
export type UpdateResult = z.infer<typeof resultSchema>;

/** Its appearance starts the companion unit. */
export const requestPath = (stateDir: string): string => join(stateDir, "run", "update", "request.json");
const resultPath = (stateDir: string): string => join(stateDir, "run", "update", "result.json");

export async function writeRequest(stateDir: string, request: UpdateRequest): Promise<void> {
  await mkdir(join(stateDir, "run", "update"), { recursive: true, mode: PRIVATE_DIR });
  await writeFileAtomic(requestPath(stateDir), `${JSON.stringify(request)}\n`);
}

/** Reads the request and takes it away, so that it is acted on once. Null when there is none that can be read. */
export async function takeRequest(stateDir: string): Promise<UpdateRequest | null> {
  const text = await readFile(requestPath(stateDir), "utf8").catch(() => null);
  await rm(requestPath(stateDir), { force: true });
  return parsed(requestSchema, text);
}

/** Root writes it for a daemon that is not root: who may enter the folder may read it. */
export const writeResult = (stateDir: string, result: UpdateResult): Promise<void> =>
  writeFileAtomic(resultPath(stateDir), `${JSON.stringify(result)}\n`, PUBLIC_FILE);

export const readResult = async (stateDir: string): Promise<UpdateResult | null> =>
  parsed(resultSchema, await readFile(resultPath(stateDir), "utf8").catch(() => null));

function parsed<T>(schema: z.ZodType<T>, text: string | null): T | null {
  if (text === null) return null;
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}
