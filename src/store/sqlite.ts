/** SQL in SQLite's words, done on one database with its prepared statements. */
import type { Database, Statement } from "bun:sqlite";
import type { Parameters, Table } from "./rows.ts";

/** One open database with its prepared statements. Everything here answers at once and may throw SQLiteError. */
export interface Sql {
  all<T>(table: Table<T>, rest: string, parameters?: Parameters): T[];
  one<T>(table: Table<T>, rest: string, parameters?: Parameters): T | null;
  insert<T>(table: Table<T>, row: T, onConflict?: string): void;
  /** How many rows changed. */
  run(sql: string, parameters?: Parameters): number;
  /** How many rows changed so far, in what was undone too. */
  readonly changes: number;
  value(sql: string, parameters?: Parameters): unknown;
  /** All of `work` or none of it, also inside a transaction. */
  together(work: () => void): void;
  /** Lets go of every statement, without which closing the database leaves its -wal file behind. */
  finalize(): void;
}

export function preparedSql(db: Database): Sql {
  const statements = new Map<string, Statement>();
  // The statements of this room are a fixed set, so the map stops growing.
  const prepared = (sql: string): Statement => {
    const known = statements.get(sql) ?? db.prepare(sql);
    statements.set(sql, known);
    return known;
  };
  let changed = 0;
  const count = (changes: number): number => {
    changed += changes;
    return changes;
  };
  const select = textOnce(
    (table, rest) => `SELECT ${table.columns.map(({ column }) => column).join(", ")} FROM ${table.name} ${rest}`,
  );
  const insertion = textOnce((table, onConflict) => {
    const names = table.columns.map(({ column }) => column).join(", ");
    const values = table.columns.map(({ field }) => `$${field}`).join(", ");
    return `INSERT INTO ${table.name} (${names}) VALUES (${values}) ${onConflict}`;
  });
  return {
    all: (table, rest, parameters = {}) => prepared(select(table, rest)).all(parameters).map(table.decode),
    one(table, rest, parameters = {}) {
      const raw = prepared(select(table, rest)).get(parameters);
      return raw === null ? null : table.decode(raw);
    },
    insert(table, row, onConflict = "") {
      count(prepared(insertion(table, onConflict)).run(table.encode(row)).changes);
    },
    run: (sql, parameters = {}) => count(prepared(sql).run(parameters).changes),
    get changes() {
      return changed;
    },
    value(sql, parameters = {}) {
      const raw = prepared(sql).values(parameters)[0];
      return raw?.[0] ?? null;
    },
    together: (work) => db.transaction(work).immediate(),
    finalize() {
      for (const statement of statements.values()) statement.finalize();
      statements.clear();
    },
  };
}

type Columns = Pick<Table<unknown>, "name" | "columns">;

/** Of a table and the words that follow: the same few again and again. */
function textOnce(make: (table: Columns, words: string) => string): (table: Columns, words: string) => string {
  const made = new Map<Columns, Map<string, string>>();
  return (table, words) => {
    const ofTable = made.get(table) ?? new Map<string, string>();
    made.set(table, ofTable);
    const text = ofTable.get(words) ?? make(table, words);
    ofTable.set(words, text);
    return text;
  };
}

/** Gets one query done: now, inside a transaction, or in its turn. */
export type Perform = <T>(query: (sql: Sql) => T) => Promise<T>;

/** One statement, and nothing to tell. */
export const changer = (perform: Perform) => (sql: string, parameters: Parameters) =>
  perform((db) => {
    db.run(sql, parameters);
  });

/** One statement, and whether it changed anything. */
export const asker = (perform: Perform) => (sql: string, parameters: Parameters) =>
  perform((db) => db.run(sql, parameters) > 0);
