/** Operators who sign in at an OpenID Connect issuer: a real provider, a whole controller, the claims between them. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { createApiClient } from "../src/api/client.ts";
import { controllerConfigPath } from "../src/config/controller.ts";
import { createAuthenticator } from "../src/controller/http/auth.ts";
import { createOidc } from "../src/controller/http/oidc.ts";
import { initController } from "../src/controller/init.ts";
import { startController } from "../src/controller/run.ts";
import { removeTenant } from "../src/controller/tenants.ts";
import { systemClock as clock } from "../src/platform/clock.ts";
import { Secret, silentLog } from "../src/platform/log.ts";
import { openStore } from "../src/store/open.ts";
import { type OidcIssuer, oidcIssuer } from "./support/oidc-issuer.ts";

const audience = "https://aegis.example";
let issuer: OidcIssuer;
let directory: string;
const cleanUp: Array<() => Promise<unknown> | unknown> = [];
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "aegis-oidc-"));
  issuer = await oidcIssuer();
});
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
  await issuer.close();
  rmSync(directory, { recursive: true });
});

const grants = `
    - {claim: groups, value: ops, tenant: acme, scopes: [aegis.admin], contexts: [default, operator]}
    - {claim: groups, value: readers, tenant: acme, scopes: [aegis.edge.hosts.read]}
    - {claim: groups, value: callers, tenant: acme, scopes: [aegis.edge.fleet.manage]}
    - {claim: groups, value: foreign, tenant: other, scopes: [aegis.admin]}
`;

async function controller(settings = `oidc:\n  issuer: ${issuer.issuer}\n  audience: ${audience}\n  grants:${grants}`) {
  const dataDir = join(directory, "data");
  const own = await initController({ dataDir, publicEndpoint: "localhost:50056", tenantId: "acme", clock });
  appendFileSync(controllerConfigPath(dataDir), settings);
  const running = await startController({ dataDir, grpcPort: 0, httpPort: 0, clock, log: silentLog });
  cleanUp.push(() => running.close());
  const api = (token: string) => createApiClient({ url: running.httpUrl, token: new Secret(token), caPem: null });
  return { dataDir, api, own: own.operatorToken.reveal() };
}

describe("an issuer's token", () => {
  test("is good for what its claims are granted, in their tenant, and our own tokens stay good", async () => {
    const { api, own } = await controller();
    const ops = await issuer.token(audience, { groups: ["ops"] });
    expect(await api(ops).whoami()).toEqual({
      ...{ principal: "robot", tenant_id: "acme", scopes: ["aegis.admin"], contexts: ["default", "operator"] },
      expires_at: expect.stringMatching(/^20.*Z$/),
    });
    const reader = api(await issuer.token(audience, { groups: "staff readers callers" }));
    expect((await reader.whoami()).scopes).toEqual(["aegis.edge.hosts.read", "aegis.edge.fleet.manage"]);
    expect(await reader.allHosts()).toEqual([]);
    await expect(reader.tokens()).rejects.toMatchObject({ code: "forbidden" });
    expect((await api(await issuer.token(audience, { groups: ["foreign"] })).whoami()).tenant_id).toBe("other");
    expect((await api(own).whoami()).principal).toBe("admin");
  });

  test("is refused for another audience, without a grant, across tenants, expired, and by another issuer", async () => {
    const { api } = await controller();
    const cases: [string, RegExp][] = [
      [await issuer.token("https://other.example", { groups: ["ops"] }), /claim aud/],
      [await issuer.token(audience, { groups: ["nobody"] }), /nothing is granted/],
      [await issuer.token(audience, {}), /nothing is granted/],
      [await issuer.token(audience, { groups: ["ops", "foreign"] }), /several tenants: acme, other/],
    ];
    const stranger = await oidcIssuer();
    cases.push([await stranger.token(audience, { groups: ["ops"] }), /no key of its issuer|claim iss/]);
    await stranger.close();
    const genuine = await issuer.token(audience, { groups: ["ops"] });
    const [head = "", body = "", signature = ""] = genuine.split(".");
    const claims = JSON.parse(Buffer.from(body, "base64url").toString());
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    cases.push(
      [`${head}.${part({ ...claims, groups: ["ops"], sub: "root" })}.${signature}`, /signature is wrong/],
      [`${part({ alg: "none" })}.${body}.x`, /not allowed/],
      [
        `${part({ alg: "HS256", kid: JSON.parse(Buffer.from(head, "base64url").toString()).kid })}.${body}.${signature}`,
        /not allowed/,
      ],
      ["a.b.c", /no JWT/],
    );
    for (const [token, message] of cases)
      await expect(api(token).whoami()).rejects.toMatchObject({
        code: "unauthenticated",
        message: expect.stringMatching(message),
      });
  });

  test("ends at its time, and with its tenant", async () => {
    const store = await openStore(":memory:");
    cleanUp.push(() => store.close());
    let now = clock.now();
    const config = {
      ...{ issuer: issuer.issuer, audience, nameClaim: "sub" },
      grants: [{ claim: "groups", value: "ops", tenant: "acme", scopes: ["aegis.admin"], contexts: [] }],
    };
    const oidc = createOidc({ config, store, clock, time: () => now, log: silentLog });
    const { authenticate } = createAuthenticator({ store, time: () => now, log: silentLog, oidc });
    const token = `Bearer ${await issuer.token(audience, { groups: ["ops"] }, 600)}`;
    const first = await authenticate(token);
    now += 599_000;
    // The same operator with the next token: what was begun with one goes on with the other.
    expect((await authenticate(`Bearer ${await issuer.token(audience, { groups: ["ops"] })}`)).tokenId).toBe(
      first.tokenId,
    );
    now += 32_000;
    await expect(authenticate(token)).rejects.toMatchObject({ message: "the token has expired" });
    const { api, dataDir } = await controller();
    const ops = api(await issuer.token(audience, { groups: ["ops"] }));
    await ops.whoami();
    await removeTenant({ dataDir, tenantId: "acme", clock });
    await expect(ops.whoami()).rejects.toMatchObject({ message: "the tenant acme was removed" });
  });
});

describe("an issuer's keys", () => {
  test("are found anew when they were exchanged, and an unknown key makes nobody ask at will", async () => {
    const store = await openStore(":memory:");
    cleanUp.push(() => store.close());
    const config = {
      ...{ issuer: issuer.issuer, audience, nameClaim: "sub" },
      grants: [{ claim: "groups", value: "ops", tenant: "acme", scopes: ["aegis.admin"], contexts: [] }],
    };
    const make = (askAgainMs: number) =>
      createAuthenticator({
        ...{ store, time: clock.now, log: silentLog },
        oidc: createOidc({ config, store, clock, time: clock.now, log: silentLog, askAgainMs }),
      });
    const eager = make(1);
    const before = `Bearer ${await issuer.token(audience, { groups: ["ops"] })}`;
    expect((await eager.authenticate(before)).name).toBe("robot");
    await issuer.rotate();
    const after = `Bearer ${await issuer.token(audience, { groups: ["ops"] })}`;
    expect((await eager.authenticate(after)).name).toBe("robot");
    await expect(eager.authenticate(before)).rejects.toMatchObject({ code: "unauthenticated" });

    const calm = make(60_000);
    await calm.authenticate(after);
    const asked = issuer.keysAsked;
    const { privateKey, publicKey } = await generateKeyPair("ES256");
    expect(await exportJWK(publicKey)).toHaveProperty("x");
    for (let at = 0; at < 20; at++) {
      const forged = await new SignJWT({ groups: ["ops"] })
        .setProtectedHeader({ alg: "ES256", kid: `k${at}` })
        .setIssuer(issuer.issuer)
        .setAudience(audience)
        .setSubject("eve")
        .setExpirationTime("10m")
        .sign(privateKey);
      await expect(calm.authenticate(`Bearer ${forged}`)).rejects.toMatchObject({ code: "unauthenticated" });
    }
    expect(issuer.keysAsked).toBe(asked);
  });

  test("cannot be had from an issuer that is away or calls itself something else: said as such, and our tokens stay good", async () => {
    const { api, own } = await controller();
    const token = await issuer.token(audience, { groups: ["ops"] });
    await issuer.close();
    await expect(api(token).whoami()).rejects.toMatchObject({ code: "unavailable" });
    expect((await api(own).whoami()).principal).toBe("admin");
    issuer = await oidcIssuer();
    const liar = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () => Response.json({ issuer: "https://elsewhere.example", jwks_uri: `${issuer.issuer}/jwks` }),
    });
    cleanUp.push(() => liar.stop(true));
    const store = await openStore(":memory:");
    cleanUp.push(() => store.close());
    const config = { issuer: `http://127.0.0.1:${liar.port}`, audience, nameClaim: "sub", grants: [] };
    const oidc = createOidc({ config, store, clock, time: clock.now, log: silentLog });
    await expect(oidc.authenticate(token)).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringContaining('it is that of "https://elsewhere.example"'),
    });
  });
});

test("a grant of a scope that there is not keeps the controller from starting, with the scope that was meant", async () => {
  const settings = `oidc: {issuer: "${issuer.issuer}", audience: x, grants: [{claim: a, value: b, tenant: t, scopes: [aegis.edge.host.read]}]}`;
  await expect(controller(settings)).rejects.toMatchObject({
    message: expect.stringContaining("did you mean aegis.edge.hosts.read?"),
  });
});
