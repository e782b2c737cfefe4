/** A backup is one file: the database as it was at one moment, with the files that belong to it in a table of its own. */
import { Database } from "bun:sqlite";
import { chmod, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { AegisError } from "../errors.ts";
import { PRIVATE_FILE, syncDirectory } from "../platform/private-file.ts";
import { newestSchema } from "./migrate.ts";

/** A file beside the database; `path` is relative, with slashes. */
export interface BackupFile {
  path: string;
  data: Uint8Array;
}

export interface BackupInfo {
  /** Epoch milliseconds. */
  madeAt: number;
  /** Of the aegis that made it. */
  version: string;
}

/** Copies a database that may be in use, without stopping anybody. `target` must not exist; it is private from its first byte. */
export async function writeBackup(
  databasePath: string,
  target: string,
  files: readonly BackupFile[],
  info: BackupInfo,
): Promise<void> {
  if (await stat(target).catch(() => null))
    throw new AegisError("conflict", `${target} exists`, { hint: "name a new file; a backup never replaces another" });
  const temporary = `${target}.part`;
  await rm(temporary, { force: true });
  try {
    const created = await open(temporary, "wx", PRIVATE_FILE);
    await created.close();
    await chmod(temporary, PRIVATE_FILE);
    copyDatabase(databasePath, temporary);
    keepFiles(temporary, files, info);
    const file = await open(temporary, "r+");
    await file.sync();
    await file.close();
    await rename(temporary, target);
    await syncDirectory(dirname(target));
  } catch (thrown) {
    await rm(temporary, { force: true });
    if (thrown instanceof AegisError) throw thrown;
    const cause = thrown as Error;
    throw new AegisError("unavailable", `cannot write the backup ${target}: ${cause.message}`, {
      cause,
      hint: "check the folder and the disk's space",
    });
  }
}

function copyDatabase(from: string, to: string): void {
  const db = new Database(from, { readwrite: true });
  try {
    db.run("PRAGMA busy_timeout = 5000");
    db.run("VACUUM INTO ?", [to]);
  } finally {
    db.close();
  }
}

function keepFiles(path: string, files: readonly BackupFile[], { madeAt, version }: BackupInfo): void {
  const db = new Database(path, { readwrite: true });
  try {
    db.run("CREATE TABLE backup_info (made_at INTEGER NOT NULL, version TEXT NOT NULL) STRICT");
    db.run("INSERT INTO backup_info VALUES (?, ?)", [madeAt, version]);
    db.run("CREATE TABLE backup_files (path TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT");
    for (const { path: name, data } of files) db.run("INSERT INTO backup_files VALUES (?, ?)", [name, data]);
  } finally {
    db.close();
  }
}

/** What a backup holds. Throws `config_invalid` for a file that is none, is damaged, or is of a newer aegis. */
export async function readBackup(path: string): Promise<BackupInfo & { files: BackupFile[] }> {
  const no = (why: string, hint = "give a file made by: aegis controller backup FILE") =>
    new AegisError("config_invalid", `${path} ${why}`, { hint });
  if (!(await stat(path).catch(() => null))?.isFile()) throw no("is not there");
  let db: Database;
  try {
    db = new Database(path, { readonly: true });
  } catch (cause) {
    throw no(`cannot be opened: ${(cause as Error).message}`);
  }
  try {
    const health = db.query<{ integrity_check: string }, []>("PRAGMA integrity_check").get()?.integrity_check;
    if (health !== "ok") throw no(`is damaged: ${health}`, "use another backup");
    const info = db.query<{ made_at: number; version: string }, []>("SELECT * FROM backup_info").get();
    const schema = db
      .query<{ version: number }, []>("SELECT max(version) AS version FROM schema_version")
      .get()?.version;
    if (!info || schema === undefined) throw no("is no backup of a controller");
    if (schema > newestSchema)
      throw no(
        `was made by aegis ${info.version} with schema version ${schema}; this one knows versions up to ${newestSchema}`,
        "restore it with that aegis or a newer one",
      );
    const files = db.query<BackupFile, []>("SELECT path, data FROM backup_files ORDER BY path").all();
    return { madeAt: info.made_at, version: info.version, files };
  } catch (thrown) {
    if (thrown instanceof AegisError) throw thrown;
    throw no(`is no backup of a controller, or is damaged: ${(thrown as Error).message}`);
  } finally {
    db.close();
  }
}

/** Puts the backup's database at `target`, which must not exist. */
export async function restoreDatabase(backup: string, target: string): Promise<void> {
  const created = await open(target, "wx", PRIVATE_FILE);
  await created.close();
  await chmod(target, PRIVATE_FILE);
  copyDatabase(backup, target);
  const db = new Database(target, { readwrite: true });
  try {
    db.run("DROP TABLE backup_files");
    db.run("DROP TABLE backup_info");
  } finally {
    db.close();
  }
}
