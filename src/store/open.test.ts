import { Database } from "bun:sqlite";
import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { migrate } from "./migrate.ts";
import { migrations } from "./migrations.ts";
import { openStore } from "./open.ts";

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "aegis-open-"));
  path = join(directory, "controller.db");
});
afterEach(() => rm(directory, { recursive: true }));

async function refusal(opening: Promise<unknown>): Promise<AegisError> {
  const outcome = await opening.catch((thrown: unknown) => thrown);
  if (outcome instanceof AegisError) return outcome;
  throw new Error(`not refused: ${outcome}`);
}

const modeOf = async (file: string) => (await stat(file)).mode & 0o777;

test("the database and the files beside it are the owner's alone, whatever the umask says", async () => {
  for (const mask of [0o000, 0o077]) {
    const file = join(directory, `mask-${mask}.db`);
    const before = process.umask(mask);
    try {
      const store = await openStore(file);
      await store.ensureTenant("acme", 1);
      for (const suffix of ["", "-wal", "-shm"]) expect(await modeOf(`${file}${suffix}`)).toBe(0o600);
      await store.close();
    } finally {
      process.umask(before);
    }
  }
});

test("closing leaves one file, which alone is the whole database", async () => {
  const store = await openStore(path);
  await store.transaction((tx) => tx.ensureTenant("acme", 1));
  expect(await store.interruptOpenRuns(1)).toBe(0);
  await store.close();
  expect(await readdir(directory)).toEqual(["controller.db"]);
});

/** What has resolved once nothing more happens by itself. */
async function resolved(changes: Readonly<Record<string, Promise<unknown>>>): Promise<string[]> {
  const done: string[] = [];
  for (const [name, change] of Object.entries(changes)) void change.then(() => done.push(name));
  await Bun.sleep(0);
  return done;
}

test("a change waits for the disk, and nothing that comes after it waits for that", async () => {
  const disk = Promise.withResolvers<void>();
  let orders = 0;
  const synced = () => {
    orders++;
    return disk.promise;
  };
  const store = await openStore(path, { disk: () => ({ synced, close: async () => {} }) });
  const changes = {
    alone: store.ensureTenant("acme", 1),
    together: store.transaction((tx) => tx.ensureTenant("other", 1)),
    committed: store.transaction((tx) => tx.ensureTenant("third", 1), { wait: "commit" }),
    noted: store.nodeHeartbeats(new Map([["n1", 1]])),
    read: store.tenants(),
    nothing: store.transaction((tx) => tx.tenants()),
  };
  expect((await resolved(changes)).sort()).toEqual(["committed", "noted", "nothing", "read"]);
  expect((await changes.read).map(({ tenantId }) => tenantId)).toEqual(["acme", "other", "third"]);
  disk.resolve();
  await Promise.all(Object.values(changes));
  await store.synced();
  const before = orders;
  await store.synced();
  expect(orders).toBe(before);
  await store.close();
});

test("a disk that fails is an error of whoever waits for it, and names the database", async () => {
  const synced = () => Promise.reject(new Error("EIO"));
  const store = await openStore(path, { disk: () => ({ synced, close: async () => {} }) });
  const error = await refusal(store.ensureTenant("acme", 1));
  expect(error).toMatchObject({ code: "unavailable" });
  expect(error.message).toContain(`${path} cannot be brought to disk: EIO`);
});

test("a database that others could read is made private again", async () => {
  await (await openStore(path)).close();
  await chmod(path, 0o644);
  await (await openStore(path)).close();
  expect(await modeOf(path)).toBe(0o600);
});

test("a missing directory is named, with the command that makes it", async () => {
  const error = await refusal(openStore(join(directory, "nowhere", "controller.db")));
  expect(error.code).toBe("config_invalid");
  expect(error.message).toContain(join(directory, "nowhere", "controller.db"));
  expect(error.hint).toContain("aegis controller init");
  await mkdir(path);
  expect((await refusal(openStore(path))).message).toContain("not a regular file");
});

test("it writes ahead and checks references", async () => {
  const store = await openStore(path);
  const other = new Database(path);
  expect(other.query("PRAGMA journal_mode").get()).toEqual({ journal_mode: "wal" });
  other.close();
  const dangling = store.insertApiToken({
    ...{ tokenId: "t", hash: new Uint8Array(32), name: "n", tenantId: "nobody", scopes: [], contexts: [] },
    ...{ createdAt: 1, expiresAt: null, lastUsedAt: null, revokedAt: null },
  });
  expect((await refusal(dangling)).message).toContain("FOREIGN KEY");
  await store.close();
});

test("a database of a newer build is refused with both versions, and left as it was", async () => {
  await (await openStore(path)).close();
  const db = new Database(path);
  db.run("INSERT INTO schema_version VALUES (999)");
  db.close();
  const before = await readFile(path);
  const error = await refusal(openStore(path));
  expect(error).toMatchObject({ code: "config_invalid" });
  expect(error.message).toContain(`${path} has schema version 999`);
  expect(error.message).toContain(`versions up to ${migrations.at(-1)?.version}`);
  expect(error.hint).toContain("newer aegis");
  expect((await readFile(path)).equals(before)).toBe(true);
});

test("a file that is no database is refused by name and kept", async () => {
  await writeFile(path, "not a database, but long enough to look at\n".repeat(200));
  const error = await refusal(openStore(path));
  expect(error).toMatchObject({ code: "config_invalid" });
  expect(error.message).toContain(path);
  expect(error.hint).toContain("backup");
  expect((await readFile(path, "utf8")).startsWith("not a database")).toBe(true);
});

test("a database with a garbled first page is refused as damaged", async () => {
  await (await openStore(path)).close();
  const content = await readFile(path);
  content.fill(0xa5, 100, 4096);
  await writeFile(path, content);
  expect(await refusal(openStore(path))).toMatchObject({ code: "config_invalid" });
});

test("another program's database is refused and left as it was", async () => {
  const db = new Database(path);
  db.run("CREATE TABLE recipes (name TEXT)");
  db.close();
  const before = await readFile(path);
  const error = await refusal(openStore(path));
  expect(error.code).toBe("config_invalid");
  expect(error.message).toContain("another program's database");
  expect((await readFile(path)).equals(before)).toBe(true);
});

test("a locked database is unavailable and names the file", async () => {
  const store = await openStore(path, { busyTimeoutMs: 20 });
  const other = new Database(path);
  other.run("BEGIN IMMEDIATE");
  for (const attempt of [
    store.ensureTenant("acme", 1),
    store.transaction(async (tx) => await tx.ensureTenant("acme", 1)),
  ]) {
    const error = await refusal(attempt);
    expect(error.code).toBe("unavailable");
    expect(error.message).toContain(path);
  }
  other.run("ROLLBACK");
  other.close();
  await store.ensureTenant("acme", 1);
  expect(await store.tenant("acme")).not.toBeNull();
  await store.close();
});

test("migrations are numbered from 1 without a gap", () => {
  expect(migrations.map(({ version }) => version)).toEqual(migrations.map((_, index) => index + 1));
});

test("an older database is brought forward step by step and keeps its rows; a failing step leaves it where it was", () => {
  const db = new Database(":memory:");
  const first = { version: 1, sql: "CREATE TABLE things (name TEXT) STRICT; INSERT INTO things VALUES ('kept')" };
  const second = { version: 2, sql: "ALTER TABLE things ADD COLUMN size INTEGER NOT NULL DEFAULT 7" };
  migrate(db, "x", [first]);
  expect(() => migrate(db, "x", [first, { version: 2, sql: "CREATE TABLE other (a); SELECT nonsense" }])).toThrow();
  expect(db.query("SELECT name FROM sqlite_schema WHERE name = 'other'").all()).toEqual([]);
  migrate(db, "x", [first, second]);
  migrate(db, "x", [first, second]);
  expect(db.query("SELECT * FROM things").all()).toEqual([{ name: "kept", size: 7 }]);
  expect(db.query("SELECT version FROM schema_version").values()).toEqual([[1], [2]]);
});
