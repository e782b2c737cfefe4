/** Hosts for a bench without their enrollment: written into the controller's database as enrollment would have left them. */
import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadControllerConfig } from "../../src/config/controller.ts";
import { databasePath } from "../../src/controller/database.ts";
import { loadControllerKeys } from "../../src/controller/keys.ts";
import { loadTls } from "../../src/controller/tls.ts";
import { type Claims, signJwt } from "../../src/envelope/jwt.ts";
import { trustFirst } from "../../src/envelope/keyset.ts";
import { importPublicKey, importSigningKey, newSeed } from "../../src/envelope/public-key.ts";
import { openStore } from "../../src/store/open.ts";
import type { Installation } from "../support/installation.ts";
import type { SwarmHost, SwarmInput, SwarmReport } from "./swarm.ts";

export type Seeds = Omit<SwarmInput, "backoffScheduleMs">;

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");

/** Adds `count` hosts, called `sim-<number>` from `first` on. */
export async function seedHosts(site: Installation, first: number, count: number): Promise<Seeds> {
  const dataDir = join(site.server.home, ".aegis/controller");
  const store = await openStore(databasePath(dataDir));
  try {
    const { controllerId } = await loadControllerConfig(dataDir);
    const newest = await store.newestKeyset();
    const root = newest && importPublicKey(newest.rootKey);
    if (!newest || !root) throw new Error("the controller has no keyset");
    const trusted = trustFirst(root.keyId, [newest.signed]);
    if (trusted.kind === "refused") throw new Error(trusted.reason);
    const keys = await loadControllerKeys(dataDir, trusted.keyset);
    const [tenant] = await store.tenants();
    const tenantId = tenant?.tenantId ?? "default";
    const hosts: SwarmHost[] = [];
    await store.transaction(async (tx) => {
      for (let number = first; number < first + count; number++) {
        const nodeId = randomUUID();
        const seed = newSeed();
        const { raw } = importSigningKey(seed);
        const iat = Math.floor(Date.now() / 1000);
        const [jti, exp] = [randomUUID(), iat + 30 * 86_400];
        const claims: Claims<"node"> = {
          ...{ sub: nodeId, tid: tenantId, cep: "https://localhost", cap_hash: "", iss: controllerId },
          ...({ role: "edge", aud: "aegis-controller" } as const),
          ...{ jti, iat, exp },
          cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: base64url(raw) } },
        };
        const name = `sim-${number}`;
        hosts.push({ nodeId, name, seed: base64url(seed), token: signJwt("node", claims, keys.token) });
        await tx.putNode({
          ...{ nodeId, tenantId, publicKey: raw, seal: "strict", hostName: name, displayName: null, tags: [] },
          ...{ capabilities: new Uint8Array(), softwareVersion: "bench", enrolledAt: Date.now(), connectedSince: null },
          ...{ lastHeartbeatAt: null, tokenJti: jti, tokenExpiresAt: exp * 1000, revokedAt: null },
        });
      }
    });
    const { caPem } = await loadTls(dataDir);
    const signedKeyset = base64url(newest.signed);
    return { port: site.grpcPort, tenantId, caPem: caPem ?? "", rootKeyId: base64url(root.keyId), signedKeyset, hosts };
  } finally {
    await store.close();
  }
}

export interface Swarm {
  /** How many hosts say that they are connected now; a second old at most. */
  connected(): number;
  /** Why one of them is not connected, in its own words. */
  lastFailure(): string;
  pids: readonly number[];
  stop(): Promise<void>;
}

/** Files that a process may have open from here on, up to `wanted` where this user may say so; answers how many. */
export function raiseDescriptorLimit(wanted: number): number {
  const limit = () => Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? 0);
  if (limit() < wanted)
    Bun.spawnSync(["prlimit", "--pid", `${process.pid}`, `--nofile=${wanted}:${wanted}`], { stderr: "ignore" });
  return limit();
}

/** What a daemon waits after a failure unless its owner says otherwise. */
const daemonSchedule = [1_000, 2_000, 5_000, 15_000, 60_000];

/** Starts the hosts in so many processes. */
export function startSwarm(seeds: Seeds, processes: number, backoffScheduleMs = daemonSchedule): Swarm {
  const folder = mkdtempSync(join(tmpdir(), "aegis-swarm-"));
  const reports: SwarmReport[] = [];
  const perProcess = Math.ceil(seeds.hosts.length / processes);
  const children = Array.from({ length: processes }, (_, index) => {
    const hosts = seeds.hosts.slice(index * perProcess, (index + 1) * perProcess);
    const file = join(folder, `${index}.json`);
    writeFileSync(file, JSON.stringify({ ...seeds, hosts, backoffScheduleMs } satisfies SwarmInput), { mode: 0o600 });
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "swarm.ts"), file], {
      ...{ stdin: "ignore", stdout: "pipe", stderr: "inherit" },
    });
    void (async () => {
      const decoder = new TextDecoder();
      let text = "";
      for await (const chunk of child.stdout) {
        text += decoder.decode(chunk, { stream: true });
        const lines = text.split("\n");
        text = lines.pop() ?? "";
        const last = lines.at(-1);
        if (last) reports[index] = JSON.parse(last) as SwarmReport;
      }
    })();
    return child;
  });
  return {
    connected: () => reports.reduce((sum, { connected }) => sum + connected, 0),
    lastFailure: () => reports.map(({ lastFailure }) => lastFailure).find((words) => words !== "") ?? "",
    pids: children.map(({ pid }) => pid),
    async stop() {
      for (const child of children) child.kill("SIGTERM");
      const late = Bun.sleep(5_000).then(() => {
        for (const child of children) child.kill("SIGKILL");
      });
      await Promise.race([Promise.all(children.map(({ exited }) => exited)), late]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
