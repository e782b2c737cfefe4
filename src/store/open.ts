/** Opens the controller's database: made private, brought to this build's schema, one change at a time. */

import { Database, SQLiteError } from "bun:sqlite";
import { AsyncLocalStorage } from "node:async_hooks";
import { chmod, open, stat } from "node:fs/promises";
import { AegisError } from "../errors.ts";
import { PRIVATE_FILE } from "../platform/private-file.ts";
import { type DiskSync, diskSync } from "./disk-sync.ts";
import { membershipQueries } from "./membership-queries.ts";
import { migrate } from "./migrate.ts";
import { recordQueries } from "./record-queries.ts";
import { type Perform, preparedSql } from "./sqlite.ts";
import type { Queries, Store } from "./store.ts";

/** How long a query waits for another process, such as `aegis controller token create`, to let go of the database. */
const busyTimeoutMs = 5_000;

export interface OpenOptions {
  busyTimeoutMs?: number;
  /** Instead of the real disk: what brings the file at `path` onto it. */
  disk?: (path: string) => DiskSync;
}

/**
 * Opens `path`, made 0600 when it is not there; its directory must be. `:memory:` is a database that nobody else sees.
 * Throws `config_invalid` for a damaged file, a foreign one and one of a newer build, `unavailable` for a locked one.
 */
export async function openStore(path: string, options: OpenOptions = {}): Promise<Store> {
  if (path !== ":memory:") await privateFile(path);
  const guard = translating(path);
  const db = guard(() => new Database(path, { strict: true, readwrite: true, create: path === ":memory:" }));
  let disk: DiskSync | null = null;
  try {
    guard(() => {
      db.run(`PRAGMA busy_timeout = ${options.busyTimeoutMs ?? busyTimeoutMs}`);
      db.run("PRAGMA synchronous = FULL");
      db.run("PRAGMA foreign_keys = ON");
      // Before the mode is changed: a database that is refused stays as it was.
      migrate(db, path);
      const inWal = db.prepare("PRAGMA journal_mode = WAL");
      const { journal_mode: mode } = inWal.get() as { journal_mode: string };
      inWal.finalize();
      if (mode !== "wal") return;
      // A commit is in the -wal file and on its way; SQLite would keep this whole process waiting until it is on the disk.
      db.run("PRAGMA synchronous = NORMAL");
      disk = (options.disk ?? diskSync)(`${path}-wal`);
    });
  } catch (thrown) {
    db.close();
    throw thrown;
  }
  return serialStore(db, guard, disk);
}

/** SQLite gives the files beside the database the database's own mode. */
async function privateFile(path: string): Promise<void> {
  try {
    const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return null;
      throw cause;
    });
    if (found === null) {
      const file = await open(path, "a", PRIVATE_FILE);
      await file.close();
      await chmod(path, PRIVATE_FILE);
    } else if (!found.isFile()) throw new Error("it is not a regular file");
    else if (process.platform !== "win32" && (found.mode & 0o077) !== 0) await chmod(path, PRIVATE_FILE);
  } catch (thrown) {
    const cause = thrown as Error;
    throw new AegisError("config_invalid", `cannot open the database ${path}: ${cause.message}`, {
      cause,
      hint: "a controller's data directory is made by: aegis controller init",
    });
  }
}

/** `loosely` is for what a loss of power may undo. */
const sqliteQueries = (perform: Perform, loosely: Perform = perform): Queries => ({
  ...membershipQueries(perform, loosely),
  ...recordQueries(perform, loosely),
});

/** Queries and transactions in the order they were asked for, one at a time. */
function serialStore(db: Database, guard: Guard, disk: DiskSync | null): Store {
  const sql = preparedSql(db);
  /** The transaction whose callback is running, as its own code sees it. */
  const inside = new AsyncLocalStorage<{ open: boolean }>();
  let tail: Promise<unknown> = Promise.resolve();
  let closed = false;

  const enqueue = <T>(work: () => T | Promise<T>): Promise<T> => {
    if (inside.getStore()?.open) {
      // It would wait for the transaction, and the transaction for it.
      return Promise.reject(new AegisError("internal", "a query inside a transaction was not made on its `tx`"));
    }
    const result = tail.then(() => {
      if (closed) throw new AegisError("unavailable", "the database is closed");
      return work();
    });
    tail = result.catch(() => {});
    return result;
  };
  /** Of `sql.changes`, how many are on the disk. */
  let changesOnDisk = sql.changes;
  /** Does not hold the queue while it waits for the disk. */
  async function synced(): Promise<void> {
    const { changes } = sql;
    if (!disk || changes === changesOnDisk) return;
    await disk.synced().catch((cause: Error) => {
      throw new AegisError("unavailable", `the database ${db.filename} cannot be brought to disk: ${cause.message}`, {
        cause,
        hint: "check the disk's space, its mount and the owner of the file",
      });
    });
    changesOnDisk = Math.max(changesOnDisk, changes);
  }
  /** `work` in its turn, and then the disk if it changed anything. */
  async function durably<T>(work: () => T | Promise<T>): Promise<T> {
    let before = 0;
    const outcome = await enqueue(() => {
      before = sql.changes;
      return work();
    });
    if (sql.changes !== before) await synced();
    return outcome;
  }
  const once =
    (within: typeof enqueue): Perform =>
    (query) =>
      within(() => guard(() => query(sql)));

  async function all<T>(change: (tx: Queries) => Promise<T>): Promise<T> {
    const scope = { open: true };
    const tx: Queries = sqliteQueries(async (query) => {
      if (!scope.open) throw new AegisError("internal", "a query was made on a transaction that has ended");
      return guard(() => query(sql));
    });
    guard(() => sql.run("BEGIN IMMEDIATE"));
    try {
      const outcome = await inside.run(scope, () => change(tx));
      guard(() => sql.run("COMMIT"));
      return outcome;
    } catch (thrown) {
      // SQLite has rolled back by itself where it could not go on at all, such as on a full disk.
      if (db.inTransaction) guard(() => sql.run("ROLLBACK"));
      throw thrown;
    } finally {
      scope.open = false;
    }
  }

  return {
    ...sqliteQueries(once(durably), once(enqueue)),
    synced,
    foreignChanges: () => enqueue(() => guard(() => Number(sql.value("PRAGMA data_version")))),
    transaction: (change, { wait = "disk" } = {}) => (wait === "disk" ? durably : enqueue)(() => all(change)),
    async close() {
      if (closed) return;
      await enqueue(async () => {
        closed = true;
        await synced();
        sql.finalize();
        db.close();
        await disk?.close();
      });
    },
  };
}

type Guard = <T>(work: () => T) => T;

/** Runs `work`; what SQLite throws becomes an AegisError that names the file. */
function translating(path: string): Guard {
  return (work) => {
    try {
      return work();
    } catch (thrown) {
      throw thrown instanceof SQLiteError ? translated(thrown, path) : thrown;
    }
  };
}

function translated(cause: SQLiteError, path: string): AegisError {
  const code = cause.code ?? "";
  const is = (...names: string[]) =>
    names.some((name) => code === `SQLITE_${name}` || code.startsWith(`SQLITE_${name}_`));
  if (is("BUSY", "LOCKED")) {
    const hint = "another program holds it; a controller's database belongs to one controller at a time";
    return new AegisError("unavailable", `the database ${path} is locked: ${cause.message}`, { cause, hint });
  }
  if (is("NOTADB", "CORRUPT")) {
    const hint = `put it aside and restore a backup: mv ${path} ${path}.damaged`;
    return new AegisError("config_invalid", `the database ${path} is damaged or no database: ${cause.message}`, {
      cause,
      hint,
    });
  }
  if (is("FULL", "IOERR", "READONLY", "CANTOPEN", "PERM")) {
    const hint = "check the disk's space, its mount and the owner of the file";
    return new AegisError("unavailable", `the database ${path} cannot be read or written: ${cause.message}`, {
      cause,
      hint,
    });
  }
  if (is("CONSTRAINT")) return new AegisError("conflict", `the database refused a change: ${cause.message}`, { cause });
  return new AegisError("internal", `the database ${path} failed: ${cause.message}`, { cause });
}
