/** Everything that makes a controller this controller, in one file and out of it again: settings, keys, database, seal of the audit. */
import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { controllerConfigPath, loadControllerConfig } from "../config/controller.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { makeDirectory, PUBLIC_FILE, writeFileAtomic } from "../platform/private-file.ts";
import { type BackupFile, readBackup, restoreDatabase, writeBackup } from "../store/backup.ts";
import { version } from "../version.ts";
import { recordAudit, sealedHeadPath } from "./audit.ts";
import { databasePath, onDatabase } from "./database.ts";

/** Works beside a running controller. The file holds private keys and is made 0600. */
export async function backupController({
  dataDir,
  file,
  clock,
}: {
  dataDir: string;
  file: string;
  clock: Clock;
}): Promise<{ files: string[] }> {
  const { controllerId } = await loadControllerConfig(dataDir);
  const madeAt = clock.now();
  const detail = { controller_id: controllerId, file: basename(file) };
  await onDatabase(dataDir, (store) => recordAudit(store, { at: madeAt, kind: "backup_made", detail }));
  const files = await privateFiles(dataDir);
  await writeBackup(databasePath(dataDir), file, files, { madeAt, version });
  return { files: files.map(({ path }) => path) };
}

async function privateFiles(dataDir: string): Promise<BackupFile[]> {
  const names = (await readdir(join(dataDir, "keys")))
    .filter((name) => keyName.test(name))
    .map((name) => `keys/${name}`);
  const paths = [basename(controllerConfigPath(dataDir)), ...names.sort()];
  const files = await Promise.all(paths.map(async (path) => ({ path, data: await readFile(join(dataDir, path)) })));
  // There from the first seal on.
  const head = await readFile(sealedHeadPath(dataDir)).catch(() => null);
  return head ? [...files, { path: basename(sealedHeadPath(dataDir)), data: head }] : files;
}

const keyName = /^[a-z0-9-]+\.(?:key|pem)$/;
const known = /^(?:controller\.yaml|audit\.head|keys\/[a-z0-9-]+\.(?:key|pem))$/;
const publicFile = /\.pem$/;

/** Into a directory that is empty or not there; the controller started on it keeps every host. */
export async function restoreController({
  dataDir,
  file,
  clock,
}: {
  dataDir: string;
  file: string;
  clock: Clock;
}): Promise<{ controllerId: string; madeAt: number; version: string }> {
  const backup = await readBackup(file);
  const present = await readdir(dataDir).catch(() => []);
  if (present.length > 0)
    throw new AegisError("conflict", `${dataDir} is not empty (${present.slice(0, 5).join(", ")})`, {
      hint: "choose another directory with --data-dir, or move that one away; two copies must never run at once",
    });
  const strange = backup.files.find(({ path }) => !known.test(path));
  if (strange)
    throw new AegisError("config_invalid", `${file} holds ${JSON.stringify(strange.path)}, which no backup does`);
  await makeDirectory(dataDir);
  await makeDirectory(join(dataDir, "keys"));
  const settings = basename(controllerConfigPath(dataDir));
  for (const { path, data } of backup.files)
    if (path !== settings)
      await writeFileAtomic(join(dataDir, path), data, publicFile.test(path) ? PUBLIC_FILE : undefined);
  await restoreDatabase(file, databasePath(dataDir));
  const detail = { made_at: new Date(backup.madeAt).toISOString(), version: backup.version };
  await onDatabase(dataDir, (store) => recordAudit(store, { at: clock.now(), kind: "backup_restored", detail }));
  // Written last: a directory without it was never finished, and `start` says so.
  const config = backup.files.find(({ path }) => path === settings);
  if (!config) throw new AegisError("config_invalid", `${file} holds no ${settings}`);
  await writeFileAtomic(join(dataDir, settings), config.data);
  const { controllerId } = await loadControllerConfig(dataDir);
  return { controllerId, madeAt: backup.madeAt, version: backup.version };
}
