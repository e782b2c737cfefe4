/** A certificate that is renewed on disk reaches hosts and operators without a restart. */

import { afterEach, beforeEach, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { createApiClient } from "../src/api/client.ts";
import { initController } from "../src/controller/init.ts";
import { startController } from "../src/controller/run.ts";
import { createTls } from "../src/controller/tls.ts";
import { spkiPin } from "../src/platform/spki-pin.ts";
import { eventually } from "./support/aegis.ts";
import { hastyClock as clock } from "./support/hasty-clock.ts";
import { recordedLog } from "./support/recorded-log.ts";

let folder: string;
const cleanUp: Array<() => Promise<unknown> | unknown> = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "aegis-certificate-"));
});
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
  rmSync(folder, { recursive: true });
});

async function issue(name: string): Promise<string> {
  const at = join(folder, name);
  mkdirSync(join(at, "keys"), { recursive: true });
  await createTls(at, "localhost", clock.now());
  return join(at, "keys");
}

const servedAt = (port: number) =>
  new Promise<string>((resolve, reject) => {
    const socket = connect(
      { port, host: "127.0.0.1", rejectUnauthorized: false, ALPNProtocols: ["h2", "http/1.1"] },
      () => {
        resolve(socket.getPeerX509Certificate()?.serialNumber ?? "");
        socket.destroy();
      },
    );
    socket.on("error", reject);
  });
const serialOf = (keys: string) => new X509Certificate(readFileSync(join(keys, "tls.pem"))).serialNumber;

test("new connections get it on both ports, tokens carry its pin, and what is open stays; half a change changes nothing", async () => {
  const [first, second] = [await issue("first"), await issue("second")];
  const [tlsCert, tlsKey] = [join(folder, "live.pem"), join(folder, "live.key")];
  const put = (keys: string, name: "tls.pem" | "tls.key") =>
    copyFileSync(join(keys, name), name === "tls.pem" ? tlsCert : tlsKey);
  put(first, "tls.pem");
  put(first, "tls.key");
  const dataDir = join(folder, "data");
  const { operatorToken: token } = await initController({
    ...{ dataDir, publicEndpoint: "controller.example:50056", tenantId: "acme", clock },
  });
  const log = recordedLog();
  const running = await startController({ dataDir, tlsCert, tlsKey, grpcPort: 0, httpPort: 0, clock, log });
  cleanUp.push(() => running.close());
  const ports = [running.grpcPort, running.httpPort];
  const served = () => Promise.all(ports.map(servedAt));
  expect(await served()).toEqual([serialOf(first), serialOf(first)]);
  const open = connect({ port: running.httpPort, host: "127.0.0.1", rejectUnauthorized: false });
  await new Promise((resolve) => open.once("secureConnect", resolve));

  put(second, "tls.pem");
  await eventually("it says that they do not fit", () => log.find("certificate_not_renewed") !== undefined);
  expect(await served()).toEqual([serialOf(first), serialOf(first)]);
  put(second, "tls.key");
  await eventually("it is taken up", () => log.find("certificate_renewed") !== undefined);
  expect(await served()).toEqual([serialOf(second), serialOf(second)]);

  open.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const answer = await new Promise<string>((resolve) => open.once("data", (bytes) => resolve(String(bytes))));
  expect(answer).toStartWith("HTTP/1.1 200");
  const caPem = readFileSync(join(second, "tls-ca.pem"), "utf8");
  const api = createApiClient({ url: `https://localhost:${running.httpPort}`, token, caPem });
  const { token: enrollment } = await api.issueEnrollmentToken({ name: "web-1" });
  const claims = JSON.parse(Buffer.from(enrollment.split(".")[1] ?? "", "base64url").toString());
  expect(claims.pin[0]).toBe(spkiPin(new X509Certificate(readFileSync(join(second, "tls.pem")))));
});
