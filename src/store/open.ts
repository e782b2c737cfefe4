/** Opens the controller's database: made private, brought to this build's schema, one change at a time. */

import { Database, SQLiteError } from "bun:sqlite";
import { AsyncLocalStorage } from "node:async_hooks";
import { chmod, open, stat } from "node:fs/promises";
import { AegisError } from "../errors.ts";
import { PRIVATE_FILE } from "../platform/private-file.ts";
import { migrate } from "./migrate.ts";
import { type Perform, preparedSql, sqliteQueries } from "./sqlite.ts";
import type { Queries, Store } from "./store.ts";

/** How long a query waits for another process, such as `aegis controller token create`, to let go of the database. */
const busyTimeoutMs = 5_000;

/**
 * Opens `path`, made 0600 when it is not there; its directory must be. `:memory:` is a database that nobody else sees.
 * Throws `config_invalid` for a damaged file, a foreign one and one of a newer build, `unavailable` for a locked one.
 */
export async function openStore(path: string, options: { busyTimeoutMs?: number } = {}): Promise<Store> {
  if (path !== ":memory:") await privateFile(path);
  const guard = translating(path);
  const db = guard(() => new Database(path, { strict: true, readwrite: true, create: path === ":memory:" }));
  try {
    guard(() => {
      db.run(`PRAGMA busy_timeout = ${options.busyTimeoutMs ?? busyTimeoutMs}`);
      db.run("PRAGMA synchronous = FULL");
      db.run("PRAGMA foreign_keys = ON");
      // Before the mode is changed: a database that is refused stays as it was.
      migrate(db, path);
      db.run("PRAGMA journal_mode = WAL");
    });
  } catch (thrown) {
    db.close();
    throw thrown;
  }
  return serialStore(db, guard);
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

/** Queries and transactions in the order they were asked for, one at a time. */
function serialStore(db: Database, guard: Guard): Store {
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
  const perform: Perform = (query) => enqueue(() => guard(() => query(sql)));

  return {
    ...sqliteQueries(perform),
    foreignChanges: () => perform(({ value }) => Number(value("PRAGMA data_version"))),
    transaction: (change) =>
      enqueue(async () => {
        const scope = { open: true };
        const tx: Queries = sqliteQueries(async (query) => {
          if (!scope.open) throw new AegisError("internal", "a query was made on a transaction that has ended");
          return guard(() => query(sql));
        });
        guard(() => db.run("BEGIN IMMEDIATE"));
        try {
          const outcome = await inside.run(scope, () => change(tx));
          guard(() => db.run("COMMIT"));
          return outcome;
        } catch (thrown) {
          // SQLite has rolled back by itself where it could not go on at all, such as on a full disk.
          if (db.inTransaction) guard(() => db.run("ROLLBACK"));
          throw thrown;
        } finally {
          scope.open = false;
        }
      }),
    async close() {
      if (closed) return;
      await enqueue(() => {
        closed = true;
        sql.finalize();
        db.close();
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
