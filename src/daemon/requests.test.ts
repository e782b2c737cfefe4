import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "../../test/support/aegis.ts";
import { failure } from "../../test/support/enrolling.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { AegisError } from "../errors.ts";
import { systemClock as clock } from "../platform/clock.ts";
import { askDaemon, type OwnerRequest, serveRequests } from "./requests.ts";
import { processStart } from "./status.ts";

let stateDir: string;
let stop: AbortController;
let asked: OwnerRequest[];
let served: Promise<void>;

const requests = () => join(stateDir, "run", "requests");
const answers = () => join(stateDir, "run", "answers");
const ask = (request: OwnerRequest, alive = true) =>
  askDaemon(request, { stateDir, clock, signal: stop.signal, alive: async () => alive });
const refresh: OwnerRequest = { kind: "refresh_token", force: true };

function serve(handle: (request: OwnerRequest) => Promise<unknown> = async () => "done"): void {
  served = serveRequests({
    ...{ stateDir, clock, log: recordedLog(), signal: stop.signal },
    async handle(request) {
      asked.push(request);
      return await handle(request);
    },
  });
}

beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), "aegis-requests-"));
  stop = new AbortController();
  asked = [];
  served = Promise.resolve();
});
afterEach(async () => {
  stop.abort();
  await served;
  rmSync(stateDir, { recursive: true });
});

test("a request is answered once, and nothing of it stays", async () => {
  serve(async (request) => ({ said: request.kind }));
  expect(await ask({ kind: "rotate_keys", keepOldMs: 5, force: false })).toEqual({ said: "rotate_keys" });
  expect(asked).toEqual([{ kind: "rotate_keys", keepOldMs: 5, force: false }]);
  expect([readdirSync(requests()), readdirSync(answers())]).toEqual([[], []]);
});

test("what was asked before the daemon looked is answered too", async () => {
  const answer = ask(refresh);
  serve();
  expect(await answer).toBe("done");
});

test("a failure comes back with its code, its words and what to do", async () => {
  serve(() => Promise.reject(new AegisError("rate_limited", "10 times an hour", { hint: "wait" })));
  expect(await failure(ask(refresh))).toMatchObject({
    code: "rate_limited",
    message: "10 times an hour",
    hint: "wait",
  });
});

test("of somebody who is gone nothing is done: they could not know that it was", async () => {
  mkdirSync(requests(), { recursive: true });
  const started = (await processStart(process.pid)) ?? "";
  const put = (asker: object) =>
    writeFileSync(join(requests(), `${crypto.randomUUID()}.json`), JSON.stringify({ ...refresh, asker }));
  put({ pid: 2 ** 22 + 1, started });
  put({ pid: process.pid, started: `${started}0` });
  serve();
  await eventually("they are gone", () => readdirSync(requests()).length === 0);
  expect(asked).toEqual([]);
  expect(readdirSync(answers())).toEqual([]);
});

test("what is no request is put away unread: another name, a link, too long, half, of another kind", async () => {
  mkdirSync(requests(), { recursive: true });
  const name = () => join(requests(), `${crypto.randomUUID()}.json`);
  const asker = { pid: process.pid, started: await processStart(process.pid) };
  const secret = join(stateDir, "secret");
  writeFileSync(secret, JSON.stringify({ ...refresh, asker }));
  symlinkSync(secret, name());
  writeFileSync(name(), JSON.stringify({ ...refresh, asker, more: "x".repeat(5_000) }));
  writeFileSync(name(), '{"kind":"refresh');
  writeFileSync(name(), JSON.stringify({ kind: "shutdown", asker }));
  writeFileSync(name(), JSON.stringify({ ...refresh, asker, path: "/etc/passwd" }));
  writeFileSync(join(requests(), "notes.txt"), "mine");
  serve();
  await eventually("they are gone", () => readdirSync(requests()).length === 1);
  expect(asked).toEqual([]);
  expect(existsSync(secret)).toBe(true);
});

test("a daemon that ends leaves nobody waiting", async () => {
  expect(await failure(ask(refresh, false))).toMatchObject({ code: "unavailable" });
  expect(readdirSync(requests())).toEqual([]);
  const answer = failure(ask(refresh));
  stop.abort();
  expect(await answer).toMatchObject({ code: "cancelled" });
});
