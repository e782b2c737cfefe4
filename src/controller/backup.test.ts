import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createApiClient } from "../api/client.ts";
import { systemClock as clock } from "../platform/clock.ts";
import { silentLog } from "../platform/log.ts";
import { verifyDataDir } from "./audit-verify.ts";
import { backupController, restoreController } from "./backup.ts";
import { initController } from "./init.ts";
import { startController } from "./run.ts";

let place: string;
const at = (name: string) => join(place, name);
beforeEach(async () => {
  place = await mkdtemp(join(tmpdir(), "aegis-backup-"));
});
afterEach(() => rm(place, { recursive: true }));

const init = () => initController({ dataDir: at("one"), publicEndpoint: "localhost:50056", tenantId: "acme", clock });

describe("a backup", () => {
  test("of a running controller is that controller again: the same keys, tokens, certificates and audit", async () => {
    const { operatorToken: token, controllerId } = await init();
    const first = await startController({ dataDir: at("one"), grpcPort: 0, httpPort: 0, clock, log: silentLog });
    await createApiClient({ url: first.httpUrl, token, caPem: null }).createGroup({ name: "kept" });
    await backupController({ dataDir: at("one"), file: at("backup"), clock });
    await createApiClient({ url: first.httpUrl, token, caPem: null }).createGroup({ name: "later" });
    await first.close();
    expect((await stat(at("backup"))).mode & 0o777).toBe(0o600);
    expect((await readdir(place)).sort()).toEqual(["backup", "one"]);

    expect(await restoreController({ dataDir: at("two"), file: at("backup"), clock })).toMatchObject({ controllerId });
    for (const name of await readdir(at("one/keys"))) {
      expect(await readFile(at(`two/keys/${name}`))).toEqual(await readFile(at(`one/keys/${name}`)));
      expect((await stat(at(`two/keys/${name}`))).mode).toBe((await stat(at(`one/keys/${name}`))).mode);
    }
    expect((await stat(at("two/controller.db"))).mode & 0o777).toBe(0o600);
    const second = await startController({ dataDir: at("two"), grpcPort: 0, httpPort: 0, clock, log: silentLog });
    const api = createApiClient({ url: second.httpUrl, token, caPem: null });
    expect((await api.groups()).map(({ name }) => name)).toEqual(["kept"]);
    expect(second.caPem).toBe(first.caPem);
    await second.close();
    expect((await verifyDataDir({ dataDir: at("two"), controllerId })).problems).toEqual([]);
  });

  test("replaces no file, and goes into no directory that holds something", async () => {
    await init();
    await backupController({ dataDir: at("one"), file: at("backup"), clock });
    await expect(backupController({ dataDir: at("one"), file: at("backup"), clock })).rejects.toMatchObject({
      ...{ code: "conflict", message: expect.stringContaining("exists") },
    });
    await expect(restoreController({ dataDir: at("one"), file: at("backup"), clock })).rejects.toMatchObject({
      ...{ code: "conflict", message: expect.stringContaining("not empty") },
    });
  });

  test("that is none, damaged, from a newer aegis, or holding foreign paths is refused and nothing is written", async () => {
    await init();
    await backupController({ dataDir: at("one"), file: at("good"), clock });
    const bytes = await readFile(at("good"));
    await writeFile(at("text"), "not a database");
    await writeFile(at("cut"), bytes.subarray(0, bytes.length / 2));
    await mkdir(at("folder"));
    const changed = async (name: string, sql: string) => {
      await writeFile(at(name), bytes);
      const db = new Database(at(name));
      db.run(sql);
      db.close();
    };
    await changed("newer", "INSERT INTO schema_version VALUES (9999)");
    await changed("evil", "INSERT INTO backup_files VALUES ('../evil.key', x'00')");
    await changed("plain", "DROP TABLE backup_info");
    const cases: [string, RegExp][] = [
      ["missing", /is not there/],
      ["folder", /is not there/],
      ["text", /no backup|cannot be opened|damaged/],
      ["cut", /damaged/],
      ["newer", /schema version 9999/],
      ["evil", /evil\.key/],
      ["plain", /no backup/],
    ];
    for (const [name, message] of cases) {
      const attempt = restoreController({ dataDir: at("two"), file: at(name), clock });
      await expect(attempt).rejects.toMatchObject({ code: "config_invalid", message: expect.stringMatching(message) });
      expect(await stat(at("two")).catch(() => null)).toBeNull();
    }
  });
});
