/** Makes a controller's data directory: settings, keys, TLS, database, the first tenant and its first operator token. */
import { randomUUID } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { loadControllerConfig, renderControllerConfig } from "../config/controller.ts";
import { fingerprint } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { Secret } from "../platform/log.ts";
import { makeDirectory, writeFileAtomic } from "../platform/private-file.ts";
import { openStore } from "../store/open.ts";
import { databasePath } from "./database.ts";
import { readEndpoint } from "./endpoint.ts";
import { createControllerKeys } from "./keys.ts";
import { addOperatorToken, requireTenantName } from "./operator-tokens.ts";
import { createTls, loadTls } from "./tls.ts";

export interface InitOptions {
  dataDir: string;
  /** HOST:PORT that hosts will dial. */
  publicEndpoint: string;
  /** Where the REST API will be, for the first profile. */
  httpPort?: number;
  tenantId: string;
  offlineRoot?: string;
  clock: Clock;
}

export interface Initialised {
  controllerId: string;
  operatorToken: Secret;
  rootFingerprint: string;
  caPem: string | null;
  httpUrl: string;
}

export async function initController(options: InitOptions): Promise<Initialised> {
  const { dataDir, publicEndpoint, tenantId, offlineRoot, clock, httpPort = 8088 } = options;
  const endpoint = readEndpoint(publicEndpoint);
  requireTenantName(tenantId);
  const present = await readdir(dataDir).catch(() => []);
  if (present.length > 0) {
    throw new AegisError("conflict", `${dataDir} is not empty (${present.slice(0, 5).join(", ")})`, {
      hint: `start the controller that is there: aegis controller start --data-dir ${dataDir}; or choose another directory`,
    });
  }
  await makeDirectory(dataDir);
  const controllerId = randomUUID();
  const createdMs = clock.now();
  await makeDirectory(join(dataDir, "keys"));
  await createTls(dataDir, endpoint.host, createdMs);
  const { caPem, pins } = await loadTls(dataDir);
  const { root, signedKeyset } = await createControllerKeys(dataDir, controllerId, createdMs, offlineRoot, pins);
  const store = await openStore(databasePath(dataDir));
  try {
    const { token } = await store.transaction(async (tx) => {
      await tx.insertKeyset({ version: 1, signed: signedKeyset, rootKey: root.raw, createdAt: createdMs });
      const everything = {
        name: "admin",
        tenantId,
        scopes: ["aegis.admin"],
        contexts: ["default", "operator"],
        expiresAt: null,
      };
      return await addOperatorToken(tx, everything, createdMs);
    });
    // Written last: a directory without it was never finished, and `start` says so.
    await writeFileAtomic(
      join(dataDir, "controller.yaml"),
      renderControllerConfig({
        controllerId,
        publicEndpoint: endpoint.text,
        createdAt: new Date(createdMs).toISOString(),
      }),
    );
    await loadControllerConfig(dataDir);
    const httpUrl = `${endpoint.loopback ? "http" : "https"}://${endpoint.authority(httpPort)}`;
    return { controllerId, operatorToken: token, rootFingerprint: fingerprint(root), caPem, httpUrl };
  } finally {
    await store.close();
  }
}
