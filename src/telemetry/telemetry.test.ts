import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { makeCertificate } from "../../test/support/certificates.ts";
import { type OtlpReceiver, otlpReceiver } from "../../test/support/otlp-receiver.ts";
import { recordedLog } from "../../test/support/recorded-log.ts";
import { type OtlpConfig, otlpConfig } from "../config/otlp.ts";
import { AegisError } from "../errors.ts";
import { systemClock } from "../platform/clock.ts";
import { Secret, silentLog } from "../platform/log.ts";
import { lastFlushMs, noTelemetry, openTelemetry } from "./telemetry.ts";
import { maxWaiting } from "./waiting-room.ts";

setDefaultTimeout(30_000);

const receivers: OtlpReceiver[] = [];
afterEach(() => {
  for (const receiver of receivers.splice(0)) receiver.stop();
});

async function listening(...options: Parameters<typeof otlpReceiver>): Promise<OtlpReceiver> {
  const receiver = await otlpReceiver(...options);
  receivers.push(receiver);
  return receiver;
}

async function opened(port: number, change: Partial<OtlpConfig> = {}) {
  const document = { endpoint: `http://127.0.0.1:${port}`, protocol: "grpc", headers: {} } as const;
  const config = { ...otlpConfig({ ...document, resource: {}, sample_ratio: 1 }, null), ...change };
  const log = recordedLog();
  const clock = systemClock;
  const telemetry = await openTelemetry({ config, resource: { "service.name": "t" }, env: {}, clock, log });
  return { log, telemetry, endpoint: config.url };
}

const facts = { "aegis.tool": "cmd.run" };

test("without a collector there is nothing, and a caller's trace goes through", async () => {
  const telemetry = await openTelemetry({ config: null, resource: {}, env: {}, clock: systemClock, log: silentLog });
  expect(telemetry).toBe(noTelemetry);
  expect(telemetry.watch(silentLog, "info")).toBe(silentLog);
  const parent = { traceId: "a".repeat(32), spanId: "b".repeat(16), sampled: true, state: "x=y" };
  expect(telemetry.tracer.begin("tool", "server", parent, facts).context).toBe(parent);
});

test("what is too much for a collector that hangs is counted, said once, and ends within its bound", async () => {
  const receiver = await listening();
  receiver.behave("hang");
  const { log, telemetry, endpoint } = await opened(receiver.port);
  const watched = telemetry.watch(silentLog, "info");
  const each = 4 * maxWaiting;
  const began = performance.now();
  for (let n = 0; n < each; n++) {
    telemetry.tracer.begin(`tool ${n}`, "server", null, facts).end({}, null);
    watched.info("call", { command_id: `${n}` });
  }
  // As much as is recorded in a second or two is nothing to wait for.
  expect(performance.now() - began).toBeLessThan(10_000);
  const closing = performance.now();
  await telemetry.close();
  expect(performance.now() - closing).toBeLessThan(lastFlushMs + 2_000);
  expect(log.lines).toMatchObject([
    { event: "otlp_trouble", endpoint, error: `${maxWaiting} records wait already` },
    { event: "otlp_lost", endpoint, lost: 2 * each },
  ]);
});

test("up to the bound nothing is lost, and it all comes once the collector answers", async () => {
  const receiver = await listening();
  const { log, telemetry } = await opened(receiver.port);
  for (let n = 0; n < maxWaiting; n++) telemetry.tracer.begin("tool", "server", null, facts).end({}, null);
  await telemetry.close();
  expect(receiver.spans).toHaveLength(maxWaiting);
  expect(log.lines).toEqual([]);
});

test("a collector behind TLS is believed by the authority that was named, and by no other", async () => {
  const ca = await makeCertificate({ name: "ca", ca: true });
  const other = await makeCertificate({ name: "other", ca: true });
  const leaf = await makeCertificate({ name: "collector", issuer: ca, hosts: ["127.0.0.1", "localhost"] });
  const receiver = await listening({ tls: { certPem: leaf.pem, keyPem: leaf.keyPem } });
  const headers = { authorization: new Secret("Bearer me") };
  for (const host of ["127.0.0.1", "localhost"]) {
    const { telemetry } = await opened(receiver.port, { host, tls: true, caPem: ca.pem, headers });
    telemetry.tracer.begin("tool", "server", null, facts).end({}, null);
    await telemetry.close();
  }
  expect(receiver.spans).toHaveLength(2);
  expect(receiver.exports).toMatchObject([{ authorization: "Bearer me" }, { authorization: "Bearer me" }]);
  const elsewhere = await makeCertificate({ name: "collector", issuer: ca, hosts: ["127.0.0.2", "address.invalid"] });
  const impostor = await listening({ tls: { certPem: elsewhere.pem, keyPem: elsewhere.keyPem } });
  for (const [{ port }, host, caPem, why] of [
    [receiver, "127.0.0.1", other.pem, /UNAVAILABLE: .*(?:certificate|issuer)/i],
    [receiver, "localhost", null, /UNAVAILABLE: .*(?:certificate|issuer)/i],
    [impostor, "127.0.0.1", ca.pem, /UNAVAILABLE: .*127\.0\.0\.1/],
    [impostor, "localhost", ca.pem, /UNAVAILABLE: .*localhost/],
  ] as const) {
    const { log, telemetry } = await opened(port, { host, tls: true, caPem, headers });
    telemetry.tracer.begin("tool", "server", null, facts).end({}, null);
    await telemetry.close();
    expect(log.find("otlp_trouble")?.error).toMatch(why);
    expect(log.find("otlp_lost")).toMatchObject({ lost: 1 });
  }
  expect([...receiver.exports, ...impostor.exports]).toHaveLength(2);
});

test("a secret that is missing or no header is named, and not shown", async () => {
  const document = { endpoint: "http://127.0.0.1:1", protocol: "grpc", headers: {} } as const;
  const config = otlpConfig({ ...document, resource: {}, sample_ratio: 1, secret_headers: { a: "one" } }, null);
  for (const [kept, why] of [
    [null, "secret_headers.a: this host keeps no secret named one"],
    [new Secret("two\nlines-of-it"), "secret_headers.a: the secret one is no header: expected up to 4096 printable"],
  ] as const) {
    const log = recordedLog();
    const about = { config, resource: {}, env: {}, clock: systemClock, log, secret: async () => kept };
    expect(await openTelemetry(about)).toBe(noTelemetry);
    expect(log.lines).toMatchObject([{ event: "otlp_not_started", error: expect.stringContaining(why) }]);
    expect(JSON.stringify(log.lines)).not.toContain("lines-of-it");
  }
});

test("of traces that begin here so many are kept as the settings say; others keep their own answer", async () => {
  const receiver = await listening();
  const { telemetry } = await opened(receiver.port, { sampleRatio: 0 });
  telemetry.tracer.begin("begun here", "server", null, facts).end({}, null);
  const parent = { traceId: randomBytes(16).toString("hex"), spanId: randomBytes(8).toString("hex"), state: "a=b" };
  const kept = telemetry.tracer.begin("begun elsewhere", "server", { ...parent, sampled: true }, facts);
  expect(kept.context).toMatchObject({ traceId: parent.traceId, sampled: true, state: "a=b" });
  telemetry.tracer.begin("a part", "internal", kept.context, {}).end({}, "cancelled");
  kept.end({ "aegis.outcome": "ok" }, null);
  telemetry.tracer.begin("not sampled", "server", { ...parent, sampled: false }, facts).end({}, null);
  await telemetry.close();
  expect(receiver.spans.map(({ name, failed }) => [name, failed])).toEqual([
    ["a part", true],
    ["begun elsewhere", false],
  ]);
});

test("a line is told with its fields; secrets are not, long texts are cut, and quiet levels stay here", async () => {
  const receiver = await listening();
  const { telemetry } = await opened(receiver.port);
  const here = recordedLog();
  const log = telemetry.watch(here, "info").with({ node_id: "n" });
  const trace = { trace_id: "a".repeat(32), span_id: "b".repeat(16) };
  log.debug("unseen");
  log.warn("seen", {
    ...trace,
    ...{
      token: new Secret("s3cret"),
      error: new AegisError("usage", "no good"),
      big: 1n,
      list: [1, "a"],
      none: undefined,
    },
    ...{ yes: true, count: 3, long: "x".repeat(10_000) },
  });
  await telemetry.close();
  expect(here.events()).toEqual(["unseen", "seen"]);
  expect(receiver.lines).toMatchObject([
    {
      ...{ body: "seen", severity: "WARN", traceId: trace.trace_id, spanId: trace.span_id },
      attributes: {
        ...{ node_id: "n", error: "no good", big: "1", list: '[1,"a"]', yes: true, count: 3 },
        long: "x".repeat(512),
      },
    },
  ]);
  expect(receiver.text()).not.toContain("s3cret");
  expect(receiver.lines[0]?.attributes).not.toHaveProperty("none");
});
