/** Brings a database to this build's schema, or says why it must not be touched. */
import type { Database } from "bun:sqlite";
import { AegisError } from "../errors.ts";
import { version as build } from "../version.ts";
import { type Migration, migrations } from "./migrations.ts";

/** The schema this build writes, and the newest it reads. */
export const newestSchema = migrations.at(-1)?.version ?? 0;

/** Runs what `steps` has and the database lacks, each in one transaction. `path` is named in errors. */
export function migrate(db: Database, path: string, steps: readonly Migration[] = migrations): void {
  const newest = steps.at(-1)?.version ?? 0;
  const found = schemaVersion(db, path);
  if (found > newest) {
    throw new AegisError(
      "config_invalid",
      `the database ${path} has schema version ${found}; aegis ${build} knows versions up to ${newest}`,
      { hint: "run the newer aegis that wrote it, or restore a backup made with this one" },
    );
  }
  for (const { version, sql } of steps) {
    if (version <= found) continue;
    db.transaction(() => {
      // Another process may have been faster.
      if (schemaVersion(db, path) >= version) return;
      db.run("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY) STRICT");
      db.run(sql);
      db.run("INSERT INTO schema_version (version) VALUES (?)", [version]);
    }).immediate();
  }
}

/** 0 for a database with nothing in it. */
function schemaVersion(db: Database, path: string): number {
  const tables = new Set(
    db
      .query<{ name: string }, []>("SELECT name FROM sqlite_schema WHERE type = 'table'")
      .all()
      .map(({ name }) => name),
  );
  if (tables.size === 0) return 0;
  if (!tables.has("schema_version")) {
    throw new AegisError("config_invalid", `${path} is another program's database: it has no table schema_version`, {
      hint: "check --data-dir; a controller's data directory is made by: aegis controller init",
    });
  }
  return (
    db.query<{ version: number | null }, []>("SELECT max(version) AS version FROM schema_version").get()?.version ?? 0
  );
}
