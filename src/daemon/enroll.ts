/** Makes this machine a host of a controller: everything that can fail is tried first, then all files change as one. */
import { randomBytes } from "node:crypto";
import { access, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { importSigningKey, newSeed } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { commitFiles, type FileChange } from "../identity/commit-files.ts";
import { renderControllerKeys } from "../identity/controller-keys.ts";
import { loadNodeToken, tokenFacts } from "../identity/keyring.ts";
import { archivedKey } from "../identity/rotation-files.ts";
import { makeStateDir } from "../identity/state-dir.ts";
import type { Clock } from "../platform/clock.ts";
import type { Log } from "../platform/log.ts";
import { PRIVATE_DIR, PRIVATE_FILE, PUBLIC_FILE } from "../platform/private-file.ts";
import { proxyFor } from "../platform/proxy-env.ts";
import { EnrollError, type EnrollStep, explained } from "./enroll-error.ts";
import { type Admitted, exchange } from "./enroll-exchange.ts";
import { knownKeyset } from "./enroll-facts.ts";
import { type Ask, type EnrollmentPlan, requireSettled, resolveConflicts } from "./enroll-plan.ts";
import { writtenWay } from "./enroll-way.ts";
import { grpcLink } from "./grpc-link.ts";
import { type ControllerLink, LinkError } from "./link.ts";
import { findAnchor } from "./tls-anchor.ts";

export interface Enrolled {
  nodeId: string;
  tenantId: string;
  hostName: string;
  stateDir: string;
  configPath: string;
  /** Epoch milliseconds; null when the token does not say. */
  tokenExpiresAt: number | null;
  /** True: everything was there already and nothing was changed. */
  unchanged: boolean;
}

export interface EnrollOptions {
  clock: Clock;
  log: Log;
  /** Settles conflicts that are still in the plan; without it they are refused. */
  ask?: Ask;
  /** Instead of gRPC. */
  link?: ControllerLink;
}

export async function enroll(
  planned: EnrollmentPlan,
  { clock, log, ask, link: given }: EnrollOptions,
): Promise<Enrolled> {
  const plan = ask ? await resolveConflicts(planned, ask) : planned;
  requireSettled(plan);
  const { nodeId, tenantId, hostName, stateDir, configPath, work } = plan;
  const outcome = { nodeId, tenantId, hostName, stateDir, configPath };
  if (plan.complete) {
    const expMs = tokenFacts(await loadNodeToken(work.facts.tokenPath))?.expMs ?? null;
    if (expMs === null || expMs > clock.now()) return { ...outcome, tokenExpiresAt: expMs, unchanged: true };
  }
  await at("plan", () => requireWritable(plan));
  const { token, facts, keepsKey } = work;
  const { claims } = token;
  const oldKey = facts.key.kind === "present" ? facts.key.value : null;
  const seed = keepsKey && facts.keyBytes ? facts.keyBytes : newSeed();
  const key = importSigningKey(seed);
  const { host, port } = token;
  const secure = token.scheme === "https";
  const { env, home } = work.input;
  const way = await at("plan", () => writtenWay({ configPath, keeps: work.merges, env, home }));
  const proxy = secure ? proxyFor({ host, port }, way.proxy, env) : null;
  const serverName = way.serverName ?? host;
  const { clientCertificate } = way;
  const server = { host, port, serverName, proxy, clientCertificate };
  const pins = claims.pin ?? [];
  const probes = secure && pins.length > 0 && !given;
  const caPem = probes ? await at("connect", () => findAnchor(server, pins, clock)) : null;
  const tls = secure ? { pins, caPem, serverName, clientCertificate, proxy } : null;
  const link = given ?? grpcLink({ host, port, tls });
  let admitted: Admitted;
  try {
    admitted = await exchange(link, {
      nodeId,
      key,
      // Only of the same node can the old key speak for the new one.
      oldKey: plan.nodeIdIs === "new" ? null : oldKey,
      token: token.text,
      claims,
      known: claims.crk ? await knownKeyset(facts, claims.crk) : null,
    });
  } catch (thrown) {
    if (!(thrown instanceof EnrollError) || !(thrown.cause instanceof LinkError)) throw thrown;
    const { step, cause } = thrown;
    const offsetMs = cause.peerTimeMs === null ? null : clock.now() - cause.peerTimeMs;
    throw explained({ step, error: cause, nodeId, rekeys: oldKey !== null && plan.nodeIdIs !== "new", offsetMs });
  } finally {
    link.close();
  }
  log.info("admitted", { node_id: nodeId, tenant_id: tenantId, host_name: hostName });

  await at("write", async () => {
    await makeStateDir(stateDir);
    await mkdir(dirname(configPath), { recursive: true, mode: PRIVATE_DIR });
    await commitFiles(stateDir, await changes(plan, { seed, publicKey: key.raw, admitted, caPem, clock }));
  });
  return { ...outcome, tokenExpiresAt: admitted.tokenExpiresAtMs, unchanged: false };
}

interface Made {
  seed: Uint8Array;
  publicKey: Uint8Array;
  admitted: Admitted;
  caPem: string | null;
  clock: Clock;
}

async function changes({ pins, seal, work }: EnrollmentPlan, made: Made): Promise<FileChange[]> {
  const { facts, keepsKey, settings } = work;
  const { paths, configPath, keyPath, tokenPath, keyBytes } = facts;
  const { seed, publicKey, admitted, caPem, clock } = made;
  const bytes = (text: string) => Buffer.from(text, "utf8");
  const config = settings({ pins, caPem });
  const list: FileChange[] = [];
  if (!keepsKey) {
    if (keyBytes) list.push(...(await archivedKey(paths.archive, keyBytes, clock.now(), null)));
    list.push({ path: keyPath, content: seed, mode: PRIVATE_FILE });
  }
  list.push({ path: `${keyPath}.pub`, content: publicKey, mode: PUBLIC_FILE });
  list.push({ path: tokenPath, content: bytes(`${admitted.nodeToken}\n`), mode: PRIVATE_FILE });
  // Sessions that are not strict believe no keys, and keys of another enrollment must not stay.
  const keys = seal === "strict" && admitted.keyset ? bytes(renderControllerKeys(admitted.keyset)) : null;
  list.push({ path: paths.controllerKeys, content: keys, mode: PRIVATE_FILE });
  if (config !== null) {
    const old = await readFile(configPath).catch(() => null);
    if (old) list.push({ path: `${configPath}.bak`, content: old, mode: PRIVATE_FILE });
    list.push({ path: configPath, content: bytes(config), mode: PUBLIC_FILE });
  }
  list.push({ path: paths.nextKey, content: null, mode: PRIVATE_FILE });
  list.push({ path: paths.enrollmentJwt, content: null, mode: PRIVATE_FILE });
  return list;
}

/** A token is spent only where its fruit can be kept: tried with a file, because modes tell nothing about a full or frozen disk. */
async function requireWritable({ stateDir, configPath }: EnrollmentPlan): Promise<void> {
  for (const path of [stateDir, dirname(configPath)]) {
    const there = await nearestExisting(path);
    const trial = join(there, `.aegis-${randomBytes(6).toString("hex")}.tmp`);
    try {
      await writeFile(trial, new Uint8Array(trialBytes), { flag: "wx", mode: PRIVATE_FILE });
    } catch (cause) {
      throw new AegisError("config_invalid", `cannot write to ${there}: ${(cause as NodeJS.ErrnoException).code}`, {
        cause,
        hint: "run it as the user who owns this directory, or choose another with --state-dir",
      });
    } finally {
      await rm(trial, { force: true }).catch(() => {});
    }
  }
}

/** As much as all the files of an enrollment together. */
const trialBytes = 16 * 1024;

async function nearestExisting(path: string): Promise<string> {
  for (let at = path; ; at = dirname(at)) {
    const exists = await access(at).then(
      () => true,
      () => false,
    );
    if (exists || dirname(at) === at) return at;
  }
}

async function at<T>(step: EnrollStep, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw error instanceof EnrollError ? error : new EnrollError(step, AegisError.from(error));
  }
}
