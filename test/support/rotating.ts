/** A host whose key and token lie in files, so that its process can end at any step of a rotation and begin again. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRotations, type Rotations } from "../../src/controller/rotation.ts";
import { type Credentials, createCredentials } from "../../src/daemon/credentials.ts";
import type { HostChange, SessionOptions } from "../../src/daemon/session.ts";
import type { SessionEnd } from "../../src/daemon/supervise.ts";
import type { TrustedKeyset } from "../../src/envelope/keyset.ts";
import { importSigningKey } from "../../src/envelope/public-key.ts";
import { finishCommit } from "../../src/identity/commit-files.ts";
import { loadNodeKey, loadNodeToken } from "../../src/identity/keyring.ts";
import { type RotationFiles, rotationFiles } from "../../src/identity/rotation-files.ts";
import { eventually } from "./aegis.ts";
import { type FakeClock, fakeClock } from "./fake-clock.ts";
import { honestRelay, memoryLink, type Relay } from "./memory-link.ts";
import { recordedLog } from "./recorded-log.ts";
import { settled } from "./scripted-host.ts";
import { type StrictDaemon, strictDaemon } from "./strict-daemon.ts";
import { type HostIdentity, hostIdentity } from "./strict-keys.ts";
import { type StrictController, strictController } from "./strict-pair.ts";

/** What a process dies of here. */
class Crash extends Error {}

/** Ends a process before or after step number `at`, counted from 1; `steps` are the names of those that came. */
export interface CrashPlan {
  at: number;
  when: "before" | "after";
  steps: string[];
}

export interface HostProcess {
  credentials: Credentials;
  daemon: StrictDaemon;
  /** One session; resolves once it is connected or has ended. */
  connect(): Promise<{ connected: boolean; ended: Promise<SessionEnd>; stop(): void }>;
}

export interface RotatingHost extends StrictController {
  /** The host's clock. */
  host: FakeClock;
  identity: HostIdentity;
  dir: string;
  rotations: Rotations;
  relay: Relay;
  /** What RotateEdgeKey answers, before the host sees it. */
  answer: { alter: (answer: Awaited<ReturnType<Rotations["rotate"]>>) => Awaited<ReturnType<Rotations["rotate"]>> };
  link: ReturnType<typeof memoryLink>;
  /** A process of the host, from its files. */
  start(crash?: CrashPlan): Promise<HostProcess>;
  /** The public key of `node.key`, base64url. */
  keyOnDisk(): string;
  archived(): string[];
  /** The key that the controller has for this host. */
  keyAtController(): Promise<string>;
  /** Time passes on both machines. */
  pass(ms: number): Promise<void>;
  remove(): void;
}

export async function rotatingHost(options: { tokenLifeMs?: number } = {}): Promise<RotatingHost> {
  const controllerSide = fakeClock();
  const host = fakeClock();
  const controller = await strictController({ clock: controllerSide });
  const { strict, store, sessions, log, time } = controller;
  const relay = honestRelay();
  const dir = mkdtempSync(join(tmpdir(), "aegis-rotating-"));
  for (const name of ["archive", "run"]) mkdirSync(join(dir, name), { mode: 0o700 });
  const seed = crypto.getRandomValues(new Uint8Array(32));
  const iat = Math.floor(controllerSide.now() / 1000);
  const claims = options.tokenLifeMs === undefined ? {} : { iat, exp: iat + options.tokenLifeMs / 1000 };
  const identity = hostIdentity(strict, controllerSide.now(), { nodeKey: importSigningKey(seed), claims });
  await controller.enroll(identity);
  const keyPath = join(dir, "node.key");
  const tokenPath = join(dir, "node.token");
  writeFileSync(keyPath, seed, { mode: 0o600 });
  writeFileSync(tokenPath, `${identity.nodeToken}\n`, { mode: 0o600 });
  const real = createRotations({
    ...{ store, keys: strict.keys, sessions, clock: controllerSide, time, log },
    publicEndpoint: "controller.example:50056",
  });
  const answer: RotatingHost["answer"] = { alter: (given) => given };
  const rotations: Rotations = {
    rotate: async (request) => answer.alter(await real.rotate(request)),
    close: real.close,
  };
  const link = memoryLink({ doorman: () => controller.doorman, relay, log, rotations });

  async function start(crash?: CrashPlan): Promise<HostProcess> {
    let dead = false;
    const step = async <T>(name: string, act: () => Promise<T>): Promise<T> => {
      if (dead) throw new Crash();
      crash?.steps.push(name);
      const last = crash !== undefined && crash.steps.length === crash.at;
      if (last && crash.when === "before") dead = true;
      if (dead) throw new Crash();
      const done = await act();
      if (last) dead = true;
      if (dead) throw new Crash();
      return done;
    };
    await finishCommit(dir);
    const { next, drawNext, promote, replaceToken, prune } = rotationFiles({ stateDir: dir, keyPath, tokenPath });
    const files: RotationFiles = {
      next,
      drawNext: (...given) => step("drawNext", () => drawNext(...given)),
      promote: (...given) => step("promote", () => promote(...given)),
      replaceToken: (...given) => step("replaceToken", () => replaceToken(...given)),
      prune: (...given) => step("prune", () => prune(...given)),
    };
    const { nodeId, tenantId } = identity;
    const own = { nodeKey: await loadNodeKey(keyPath), nodeToken: await loadNodeToken(tokenPath) };
    const listeners = new Set<(change: HostChange) => void>();
    let keyset = strict.keyset;
    const hostLog = recordedLog();
    const credentials: Credentials = createCredentials({
      ...{ ...own, nodeId, tenantId, files, clock: host, keyset: () => keyset },
      rotate: (request) => step("ask", () => link.rotate(request)),
      async saveKeyset(newer: TrustedKeyset) {
        keyset = newer;
      },
      log: hostLog,
      onChange(what) {
        if (what === "key") for (const listener of listeners) listener("identity");
      },
    });
    const session = (): Partial<SessionOptions> => ({
      ...{ ...credentials.current, renew: credentials.renew, keepToken: credentials.keepToken },
      watch(listener) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    });
    const nodeKey = () => credentials.current.nodeKey;
    const daemon: StrictDaemon = strictDaemon({ link, log: hostLog, clock: host, strict, identity, nodeKey, session });
    return {
      credentials,
      daemon,
      async connect() {
        const before = sessions.get(nodeId);
        const { ended, stop } = daemon.connect();
        let over = false;
        void ended.then(() => {
          over = true;
        });
        const isUp = () => sessions.get(nodeId) !== undefined && sessions.get(nodeId) !== before;
        await eventually("the session is up or over", () => over || isUp());
        if (isUp() && !dead) await credentials.finish();
        return { connected: isUp(), ended, stop };
      },
    };
  }

  return {
    ...{ ...controller, host, identity, dir, rotations, relay, answer, link, start },
    keyOnDisk: () => Buffer.from(importSigningKey(readFileSync(keyPath)).raw).toString("base64url"),
    archived: () => readdirSync(join(dir, "archive")).toSorted(),
    async keyAtController() {
      const row = await store.node(identity.nodeId);
      return Buffer.from(row?.publicKey ?? []).toString("base64url");
    },
    async pass(ms) {
      for (let left = ms; left > 0; left -= 60_000) {
        await host.advance(Math.min(left, 60_000));
        await controllerSide.advance(Math.min(left, 60_000));
        await settled();
      }
    },
    remove() {
      real.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
