/** A front end on the controller's machine ends TLS: the controller speaks plain, to that machine only, and says which key hosts meet. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { randomUUID, X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createApiClient } from "../src/api/client.ts";
import { databasePath } from "../src/controller/database.ts";
import { initController } from "../src/controller/init.ts";
import { newestKeyset } from "../src/controller/keys.ts";
import { type ControllerOptions, startController } from "../src/controller/run.ts";
import { limits } from "../src/platform/limits.ts";
import { spkiPin } from "../src/platform/spki-pin.ts";
import { openStore } from "../src/store/open.ts";
import { eventually } from "./support/aegis.ts";
import { makeCertificate } from "./support/certificates.ts";
import { hastyClock as clock } from "./support/hasty-clock.ts";
import { needs } from "./support/needs.ts";
import { peerKey } from "./support/peer/envelope.ts";
import { peerChannel, StatusError } from "./support/peer/grpc.ts";
import { message } from "./support/peer/protobuf.ts";
import { recordedLog } from "./support/recorded-log.ts";

setDefaultTimeout(30_000);

let folder: string;
const cleanUp: Array<() => Promise<unknown> | unknown> = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "aegis-front-"));
});
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
  rmSync(folder, { recursive: true });
});

/** Writes a front end's certificate and answers its pins. */
async function certificate(path: string): Promise<string[]> {
  const ca = await makeCertificate({ name: "the company", ca: true });
  const leaf = await makeCertificate({ name: "front", issuer: ca, hosts: ["front.example"] });
  writeFileSync(path, `${leaf.pem}\n${ca.pem}\n`);
  return [leaf.pem, ca.pem].map((pem) => spkiPin(new X509Certificate(pem)));
}

async function controller(options: Partial<ControllerOptions>) {
  const dataDir = join(folder, "data");
  const { operatorToken: token } = await initController({
    ...{ dataDir, publicEndpoint: "front.example:443", tenantId: "acme", clock },
  });
  const running = await startController({ dataDir, grpcPort: 0, httpPort: 0, clock, log: recordedLog(), ...options });
  cleanUp.push(() => running.close());
  const listed = async () => {
    const store = await openStore(databasePath(dataDir));
    try {
      return [...(await newestKeyset(store)).tlsPins];
    } finally {
      await store.close();
    }
  };
  return { running, token, listed };
}

const opens = (host: string, port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect({ host, port }, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });

/** AttestNode as any host may call it; the gRPC status it got. */
async function attest(url: string, from: string, ca?: string): Promise<number> {
  const channel = peerChannel(url, ca, { "x-forwarded-for": from });
  const { publicKey } = peerKey(crypto.getRandomValues(new Uint8Array(32)));
  try {
    const request = message([1, randomUUID()], [2, 4], [3, publicKey], [4, Buffer.alloc(0)]);
    await channel.unary("/aegis.cluster.v1.NodeClusterService/AttestNode", request);
    return 0;
  } catch (error) {
    if (error instanceof StatusError) return error.status.code;
    throw error;
  } finally {
    channel.close();
  }
}

needs("linux")("nobody but this machine reaches either port, though the endpoint is another machine's", async () => {
  const tlsCert = join(folder, "front.pem");
  await certificate(tlsCert);
  const { running } = await controller({ tlsCert, insecureHttp: true });
  for (const port of [running.grpcPort, running.httpPort]) {
    expect(await opens("127.0.0.1", port)).toBe(true);
    // Whoever listens on every address is here too.
    expect(await opens("127.0.0.2", port)).toBe(false);
  }
});

test("tokens and keysets carry the pins of its certificate; when that changes, those of both", async () => {
  const tlsCert = join(folder, "front.pem");
  const pins = await certificate(tlsCert);
  const { running, token, listed } = await controller({ tlsCert, insecureHttp: true });
  const api = createApiClient({ url: running.httpUrl, token, caPem: null });
  const issued = async () => {
    const { token: enrollment } = await api.issueEnrollmentToken({ name: "web-1" });
    return JSON.parse(Buffer.from(enrollment.split(".")[1] ?? "", "base64url").toString());
  };
  expect(await issued()).toMatchObject({ pin: pins, cep: "https://front.example:443" });
  expect((await listed()).slice(0, 2)).toEqual(pins);
  const next = await certificate(tlsCert);
  await eventually("tokens carry the new one", async () => (await issued()).pin[0] === next[0]);
  await eventually("keysets list it first, and the former one still", async () => {
    const now = await listed();
    return now[0] === next[0] && pins.every((pin) => now.includes(pin));
  });
});

test("whom it has seen is counted, one address after the other", async () => {
  const tlsCert = join(folder, "front.pem");
  await certificate(tlsCert);
  const { running } = await controller({ tlsCert, insecureHttp: true });
  const url = `http://127.0.0.1:${running.grpcPort}`;
  for (let n = 0; n < limits.enrollmentAttemptsPerMinute; n++) expect(await attest(url, "192.0.2.1")).toBe(0);
  expect(await attest(url, "192.0.2.1")).toBe(8);
  // What a client wrote stands before what the front end added.
  expect(await attest(url, "198.51.100.7, 192.0.2.1")).toBe(8);
  expect(await attest(url, "192.0.2.2")).toBe(0);
});

test("without one nobody says who they are", async () => {
  const { running } = await controller({});
  const url = `https://localhost:${running.grpcPort}`;
  const ca = running.caPem ?? "";
  for (let n = 0; n < limits.enrollmentAttemptsPerMinute; n++) expect(await attest(url, `192.0.2.${n}`, ca)).toBe(0);
  expect(await attest(url, "192.0.2.200", ca)).toBe(8);
});

test("its certificate without its key, and without --insecure-http, is half of a pair", async () => {
  const tlsCert = join(folder, "front.pem");
  await certificate(tlsCert);
  await expect(controller({ tlsCert })).rejects.toMatchObject({
    code: "usage",
    hint: expect.stringContaining("--insecure-http"),
  });
});
