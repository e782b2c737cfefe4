/** Whom a pin lets in, over real TLS: whatever the clock says, and nobody who only shows the right certificate. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import type { AddressInfo } from "node:net";
import { createServer, type Server } from "node:tls";
import { dayMs, type Made, makeCertificate } from "../../test/support/certificates.ts";
import { spkiPin } from "../platform/spki-pin.ts";
import { distrust, type Presented, pinnedAnchor, type TlsTrust } from "./tls-trust.ts";
import { startTls } from "./tunnel.ts";

const years = (n: number) => new Date(Date.now() + n * 365 * dayMs);
const pinOf = ({ pem }: Made) => spkiPin(new X509Certificate(pem));
const servers: Server[] = [];
let ca: Made;
let leaf: Made;
let expired: Made;
let future: Made;
let selfSigned: Made;

beforeAll(async () => {
  ca = await makeCertificate({ name: "an authority", ca: true, notBefore: years(-30), notAfter: years(30) });
  const hosts = ["localhost", "127.0.0.1"];
  leaf = await makeCertificate({ name: "controller", issuer: ca, hosts });
  expired = await makeCertificate({
    name: "controller",
    issuer: ca,
    hosts,
    notBefore: years(-20),
    notAfter: years(-10),
  });
  future = await makeCertificate({ name: "controller", issuer: ca, hosts, notBefore: years(10), notAfter: years(20) });
  selfSigned = await makeCertificate({ name: "alone", hosts: ["elsewhere.example"] });
});
afterAll(() => {
  for (const server of servers) server.close();
});

/** What a client makes of a server that presents these, the first of which is its own. */
async function connect(chain: Made[], trust: Partial<TlsTrust>): Promise<string> {
  const [own] = chain;
  if (!own) throw new Error("no certificate");
  const cert = chain.map(({ pem }) => pem).join("\n");
  const server = createServer({ cert, key: own.keyPem, ALPNProtocols: ["h2"] });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const options = { pins: [], caPem: null, serverName: "localhost", clientCertificate: null, ...trust };
  return await startTls({ host: "127.0.0.1", port }, options).then(
    (socket) => {
      socket.destroy();
      return "believed";
    },
    (error: Error) => error.message.replace(/^TLS to \S+: /, ""),
  );
}

describe("18 the host's clock is ten years off", () => {
  test("18 with the authority pinned: behind, ahead and right are all the same", async () => {
    for (const one of [leaf, expired, future])
      expect(await connect([one, ca], { pins: [pinOf(ca)], caPem: ca.pem })).toBe("believed");
  });

  test("18 also when the server leaves its authority out", async () => {
    expect(await connect([expired], { pins: [pinOf(ca)], caPem: ca.pem })).toBe("believed");
  });

  test("18 with the leaf pinned", async () => {
    expect(await connect([expired, ca], { pins: [pinOf(expired)] })).toBe("believed");
    const alone = await makeCertificate({ name: "alone", notBefore: years(-20), notAfter: years(-10) });
    expect(await connect([alone], { pins: [pinOf(alone)] })).toBe("believed");
  });

  test("without a pin dates are judged", async () => {
    expect(await connect([expired, ca], { caPem: ca.pem })).toMatch(/not trusted: CERT_HAS_EXPIRED/);
    expect(await connect([leaf, ca], { caPem: ca.pem })).toBe("believed");
  });
});

describe("58 a pin that does not match", () => {
  test("58 though the authority is right", async () => {
    const trust = { pins: [pinOf(selfSigned)], caPem: ca.pem };
    expect(await connect([leaf, ca], trust)).toMatch(/no certificate of the server matches the pinned key/);
  });

  test("the right authority's certificate, shown behind a leaf that it did not sign", async () => {
    const trust = { pins: [pinOf(ca)], caPem: ca.pem };
    const impostors = [
      // Signs itself.
      [await makeCertificate({ name: "localhost", hosts: ["localhost"] }), ca],
      // Names the authority as its issuer, and is signed by somebody else.
      [await makeCertificate({ name: "localhost", issuer: ca, hosts: ["localhost"], forgedBy: selfSigned.keys }), ca],
      // The same, with a date that OpenSSL complains about instead.
      [
        await makeCertificate({
          name: "localhost",
          issuer: ca,
          hosts: ["localhost"],
          forgedBy: selfSigned.keys,
          notBefore: years(-2),
          notAfter: years(-1),
        }),
        ca,
      ],
    ];
    for (const chain of impostors) expect(await connect(chain, trust)).toMatch(/no certificate of the server matches/);
  });

  test("the pinned leaf, shown behind another", async () => {
    const other = await makeCertificate({ name: "controller", issuer: ca, hosts: ["localhost"] });
    for (const chain of [
      [other, leaf, ca],
      [other, ca, leaf],
    ])
      expect(await connect(chain, { pins: [pinOf(leaf)], caPem: ca.pem })).toMatch(
        /no certificate of the server matches/,
      );
  });

  test("a leaf that another leaf signed", async () => {
    const below = await makeCertificate({ name: "below", issuer: leaf, hosts: ["localhost"] });
    expect(await connect([below, leaf, ca], { pins: [pinOf(ca)], caPem: ca.pem })).not.toBe("believed");
    expect(await connect([below, leaf, ca], { pins: [pinOf(leaf)], caPem: ca.pem })).not.toBe("believed");
  });

  test("an authority of the same name with another key", async () => {
    const twin = await makeCertificate({ name: "an authority", ca: true });
    const chain = [await makeCertificate({ name: "controller", issuer: twin, hosts: ["localhost"] }), twin];
    expect(await connect(chain, { pins: [pinOf(ca)], caPem: ca.pem })).not.toBe("believed");
    expect(await connect(chain, { caPem: ca.pem })).not.toBe("believed");
  });
});

describe("pins that the controller's root vouches for", () => {
  const unknown = `spki-sha256:${"A".repeat(43)}`;

  test("let in a wholly new authority, or a leaf alone, whatever is in the settings", async () => {
    const settings = { pins: [unknown], withdrawnPins: [unknown], caPem: selfSigned.pem };
    expect(await connect([leaf, ca], settings)).toMatch(/no certificate of the server matches/);
    expect(await connect([leaf, ca], { ...settings, vouchedPins: [pinOf(ca)] })).toBe("believed");
    expect(await connect([expired, ca], { ...settings, vouchedPins: [pinOf(ca)] })).toBe("believed");
    expect(await connect([leaf], { ...settings, vouchedPins: [pinOf(leaf)] })).toBe("believed");
  });

  test("an authority vouched for has other servers too, and answers for nobody who only shows it", async () => {
    const trust = { pins: [unknown], withdrawnPins: [unknown], vouchedPins: [pinOf(ca)] };
    expect(await connect([leaf, ca], { ...trust, serverName: "other.example" })).toMatch(/other\.example/);
    const impostor = await makeCertificate({ name: "localhost", hosts: ["localhost"] });
    expect(await connect([impostor, ca], trust)).toMatch(/no certificate of the server matches/);
  });

  test("the settings' own stay good until a keyset has withdrawn them", async () => {
    const trust = { pins: [pinOf(ca), pinOf(leaf)], caPem: ca.pem, vouchedPins: [unknown] };
    expect(await connect([leaf, ca], trust)).toBe("believed");
    const withdrawn = { ...trust, withdrawnPins: [pinOf(ca), pinOf(leaf)] };
    expect(await connect([leaf, ca], withdrawn)).toMatch(/no certificate of the server matches/);
    // And with none left nobody else decides in their place.
    expect(await connect([leaf, ca], { ...withdrawn, vouchedPins: [] })).toMatch(/pinned none that is not withdrawn/);
  });

  test("settings that name none of the controller's keys are their owner's, and nothing is added to them", async () => {
    expect(await connect([leaf, ca], { pins: [unknown], vouchedPins: [pinOf(ca)] })).toMatch(
      /no certificate of the server/,
    );
  });

  test("a host whose settings pin nothing keeps to its authorities", async () => {
    expect(await connect([leaf, ca], { caPem: ca.pem, vouchedPins: [unknown] })).toBe("believed");
    expect(await connect([leaf, ca], { vouchedPins: [pinOf(ca)] })).toMatch(/is not trusted/);
  });
});

describe("names", () => {
  test("an authority that is pinned has other servers too", async () => {
    const trust = { pins: [pinOf(ca)], caPem: ca.pem };
    expect(await connect([leaf, ca], { ...trust, serverName: "127.0.0.1" })).toBe("believed");
    expect(await connect([leaf, ca], { ...trust, serverName: "other.example" })).toMatch(/other\.example/);
    expect(await connect([expired, ca], { ...trust, serverName: "other.example" })).toMatch(/other\.example/);
    expect(await connect([leaf, ca], { caPem: ca.pem, serverName: "other.example" })).toMatch(/other\.example/);
  });

  test("a pinned leaf is the controller, whatever it is called", async () => {
    expect(await connect([selfSigned], { pins: [pinOf(selfSigned)], caPem: selfSigned.pem })).toBe("believed");
    expect(await connect([selfSigned], { pins: [pinOf(selfSigned)] })).toBe("believed");
  });

  test("a self-signed server without a pin is refused", async () => {
    expect(await connect([selfSigned], {})).toMatch(/not trusted: DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED/);
  });
});

describe("what OpenSSL reported does not decide alone", () => {
  const certificate = ({ pem }: Made) => new X509Certificate(pem);
  const peer = (chain: Made[], error: string | null): Presented => ({
    chain: chain.map(certificate),
    authorized: error === null,
    authorizationError: error,
  });

  test("a date error is forgiven for what the pin proves, other errors are not", () => {
    const trust = { pins: [pinOf(ca)], caPem: null, serverName: "localhost" };
    expect(distrust(peer([expired, ca], "CERT_HAS_EXPIRED"), trust)).toBeNull();
    expect(distrust(peer([expired, ca], "CERT_NOT_YET_VALID"), trust)).toBeNull();
    for (const error of ["CERT_REVOKED", "INVALID_PURPOSE", "unknown", ""])
      expect(distrust(peer([leaf, ca], error), trust)).toMatch(/is not trusted/);
  });

  test("an authorized chain with the pinned certificate beside it proves no pin", async () => {
    // As if a public authority had given somebody a certificate for this name.
    const trust = { pins: [pinOf(selfSigned)], caPem: null, serverName: "localhost" };
    expect(distrust(peer([leaf, ca, selfSigned], null), trust)).toMatch(/no certificate of the server matches/);
    expect(distrust(peer([leaf, selfSigned], null), trust)).toMatch(/no certificate of the server matches/);
  });

  test("no certificate at all", () => {
    expect(distrust(peer([], null), { pins: [], caPem: null, serverName: "localhost" })).toMatch(/no certificate/);
  });

  test("the anchor is a pinned authority or a certificate that signs itself, and never a leaf of somebody", () => {
    const chain = [leaf, ca].map(certificate);
    expect(pinnedAnchor(chain, [pinOf(leaf)])).toBeNull();
    expect(pinnedAnchor(chain, [pinOf(ca)])?.fingerprint256).toBe(certificate(ca).fingerprint256);
    expect(pinnedAnchor([certificate(selfSigned)], [pinOf(selfSigned)])).not.toBeNull();
    expect(pinnedAnchor(chain, [])).toBeNull();
  });
});
