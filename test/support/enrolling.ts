/** A controller that hosts can really dial, and hosts that are nothing but a home directory. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { type ApiClient, createApiClient } from "../../src/api/client.ts";
import { databasePath } from "../../src/controller/database.ts";
import { initController } from "../../src/controller/init.ts";
import { startController } from "../../src/controller/run.ts";
import { type Enrolled, type EnrollOptions, enroll } from "../../src/daemon/enroll.ts";
import { type EnrollInput, planEnrollment } from "../../src/daemon/enroll-plan.ts";
import { type DaemonOptions, runDaemon } from "../../src/daemon/run.ts";
import { AegisError } from "../../src/errors.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { type Secret, silentLog } from "../../src/platform/log.ts";
import { openStore } from "../../src/store/open.ts";
import type { Store } from "../../src/store/store.ts";
import { type RecordedLog, recordedLog } from "./recorded-log.ts";

export interface Enrolling {
  dataDir: string;
  port: number;
  controllerId: string;
  caPem: string;
  httpUrl: string;
  /** The first operator's. */
  token: Secret;
  api: ApiClient;
  store: Store;
  log: RecordedLog;
  issue(change?: { name?: string; forNode?: string; compat?: boolean; tags?: string[] }): Promise<string>;
  /** Stops listening; its data stays. */
  stop(): Promise<void>;
  remove(): Promise<void>;
}

export async function enrolling(tenantId = "acme"): Promise<Enrolling> {
  const base = mkdtempSync(join(tmpdir(), "aegis-enrolling-"));
  const dataDir = join(base, "data");
  const clock = systemClock;
  const port = await freePort();
  const made = await initController({ dataDir, publicEndpoint: `localhost:${port}`, tenantId, clock });
  const log = recordedLog();
  const running = await startController({ dataDir, httpPort: 0, clock, log });
  const store = await openStore(databasePath(dataDir));
  const api = createApiClient({ url: running.httpUrl, token: made.operatorToken, caPem: running.caPem });
  return {
    ...{ dataDir, port, api, store, log, controllerId: running.controllerId, caPem: running.caPem ?? "" },
    ...{ httpUrl: running.httpUrl, token: made.operatorToken },
    async issue({ name = "web-1", forNode, compat, tags } = {}) {
      const request = { name, ...(forNode && { for_node: forNode }), ...(compat && { compat }), ...(tags && { tags }) };
      return (await api.issueEnrollmentToken(request)).token;
    },
    stop: () => running.close(),
    async remove() {
      await running.close();
      await store.close();
      rmSync(base, { recursive: true });
    },
  };
}

export interface BareHost {
  home: string;
  stateDir: string;
  input(token: string, change?: Partial<EnrollInput>): EnrollInput;
  enroll(token: string, change?: Partial<EnrollInput>, options?: Partial<EnrollOptions>): Promise<Enrolled>;
  /** Runs the daemon, until it is connected or `until` resolves; `stop` drains it. */
  run(
    change?: Partial<DaemonOptions>,
    until?: () => Promise<void>,
  ): Promise<{ log: RecordedLog; stop(): Promise<void> }>;
  /** Starts the daemon, which is expected to refuse. */
  refusal(): Promise<AegisError>;
  file(name: string): string;
  text(name: string): string;
  /** Every file and folder below the home, with mode and content: two equal ones mean that nothing was touched. */
  snapshot(): Record<string, string>;
  remove(): void;
}

export function bareHost(): BareHost {
  const home = mkdtempSync(join(tmpdir(), "aegis-host-"));
  const stateDir = join(home, ".aegis", "edge");
  const file = (name: string) => join(stateDir, name);
  const input: BareHost["input"] = (token, change = {}) => ({
    ...{ token, stateDir, home, hostname: "somewhere", labels: {}, allow: [], env: {} },
    ...{ fullAccess: false, minimal: false, conflicts: "refuse" },
    ...change,
  });
  return {
    ...{ home, stateDir, input, file },
    text: (name) => readFileSync(file(name), "utf8"),
    enroll: async (token, change, options = {}) =>
      await enroll(await planEnrollment(input(token, change)), { clock: systemClock, log: silentLog, ...options }),
    async run(change = {}, until) {
      const stop = new AbortController();
      const log = recordedLog();
      const connected = Promise.withResolvers<void>();
      const done = runDaemon({
        ...{ stateDir, home, env: { PATH: process.env.PATH }, clock: systemClock, log, signal: stop.signal },
        ...change,
        onState(state) {
          change.onState?.(state);
          if (state === "connected") connected.resolve();
        },
      });
      await Promise.race([until?.() ?? connected.promise, done]);
      return {
        log,
        async stop() {
          stop.abort();
          await done;
        },
      };
    },
    async refusal() {
      const signal = AbortSignal.any([]);
      const options = { stateDir, home, env: {}, clock: systemClock, log: silentLog, signal, once: true };
      return await failure(runDaemon(options));
    },
    snapshot() {
      const seen: Record<string, string> = {};
      const walk = (path: string) => {
        const found = statSync(path);
        const mode = (found.mode & 0o7777).toString(8);
        const name = relative(home, path);
        if (!found.isDirectory()) seen[name] = `${mode} ${readFileSync(path).toString("base64")}`;
        else {
          seen[`${name}/`] = mode;
          for (const entry of readdirSync(path)) walk(join(path, entry));
        }
      };
      walk(home);
      return seen;
    },
    remove: () => rmSync(home, { recursive: true, force: true }),
  };
}

/** What a promise was rejected with; a promise that was not is the test's failure. */
export async function failure(promise: Promise<unknown>): Promise<AegisError> {
  const thrown: unknown = await promise.then(
    (value) => new Error(`expected a refusal, got ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  if (thrown instanceof AegisError) return thrown;
  throw thrown;
}
