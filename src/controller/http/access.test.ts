/** Every operation, asked by everyone: made from the table of operations, so that none can be forgotten. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { startOfTime, uuidOf } from "../../../test/support/controller-rows.ts";
import { type TestApi, testApi } from "../../../test/support/test-api.ts";
import { type Operation, type OperationName, operations } from "../../api/operations.ts";
import { scopes } from "../../api/types.ts";

let api: TestApi;
beforeAll(async () => {
  api = await testApi();
  await api.nodes.add(api.store, "mine");
  await api.nodes.add(api.store, "theirs", { tenantId: "other" });
  api.react = (call) => call.answer();
});
afterAll(() => api.close());

/** A body that is right, where one is needed. */
const bodies: Partial<Record<OperationName, unknown>> = {
  issueEnrollmentToken: {},
  patchHost: { tags: ["x"] },
  changeHostTags: { add: ["y"] },
  pushHostConfig: { log_level: "info" },
  drainHost: {},
  shutdownHost: {},
  createGroup: { name: "g" },
  patchGroup: { name: "h" },
  previewTarget: { target: "All" },
  invoke: { target: "All", tool: "cmd.run" },
  cancelRun: {},
  signRun: { operator_proofs: {} },
  createToken: { name: "t", scopes: ["aegis.edge.hosts.read"] },
};

/** An id of the other tenant's, for operations that take one. */
async function foreignId(name: OperationName): Promise<string> {
  if (name.includes("Host")) return uuidOf("other theirs");
  if (name.includes("Tenant")) return "other";
  const { token, tokenId } = await api.token({ tenantId: "other" });
  if (name.includes("Token")) return tokenId;
  if (name.includes("Group")) {
    const made = await api.request("POST", "/v1/edge/groups", { token, body: { name: `g-${tokenId}` } });
    return ((await made.json()) as { id: string }).id;
  }
  const run = await api.request("POST", "/v1/edge/fleet/invoke", { token, body: bodies.invoke });
  return /"run_id":"([^"]+)"/.exec(await run.text())?.[1] ?? "";
}

for (const [name, operation] of Object.entries<Operation>(operations) as [OperationName, Operation][]) {
  const { method, path, scope } = operation;
  const body = bodies[name];
  const ask = (token: string | null, id = "nobody") =>
    api.request(method, path.replace(":id", id), { token, ...(body === undefined ? {} : { body }) });

  describe(`${method} ${path}`, () => {
    test("is refused without a token, with an expired one and with a revoked one", async () => {
      expect((await ask(null)).status).toBe(401);
      const expired = await api.token({ expiresAt: startOfTime });
      expect((await ask(expired.token)).status).toBe(401);
      const revoked = await api.token();
      await api.store.revokeApiToken("acme", revoked.tokenId, startOfTime);
      expect((await ask(revoked.token)).status).toBe(401);
    });

    for (const one of scopes) {
      const enough = scope === null || one === scope || one === "aegis.admin";
      test(`is ${enough ? "allowed" : "refused"} with the scope ${one}`, async () => {
        const { token } = await api.token({ scopes: [one] });
        const { status } = await ask(token);
        if (enough) expect([200, 201, 202, 204, 404, 409]).toContain(status);
        else expect(status).toBe(403);
      });
    }

    if (path.includes(":id"))
      test("shows and changes nothing of another tenant's", async () => {
        const id = await foreignId(name);
        expect(id).not.toBe("");
        const before = await api.store.node(uuidOf("other theirs"));
        const { token } = await api.token();
        const response = await ask(token, id);
        const text = await response.text();
        expect([response.status, text]).toEqual([404, expect.stringContaining("not_found")]);
        expect(text).not.toContain("theirs");
        expect(await api.store.node(uuidOf("other theirs"))).toEqual(before);
        expect(await api.store.tenant("other")).not.toBeNull();
      });
  });
}

test("lists hold nothing of another tenant's", async () => {
  const { token, tokenId } = await api.token({ tenantId: "other" });
  await api.request("POST", "/v1/edge/groups", { token, body: { name: "theirs" } });
  await api.request("POST", "/v1/edge/fleet/invoke", { token, body: bodies.invoke });
  for (const path of ["/v1/edge/hosts", "/v1/edge/groups", "/v1/edge/fleet/runs", "/v1/tokens", "/v1/tenants"]) {
    const text = await (await api.request("GET", path)).text();
    expect(text).not.toContain("theirs");
    expect(text).not.toContain(tokenId);
    expect(text).not.toContain('"other"');
  }
  const preview = await api.request("POST", "/v1/edge/fleet/preview", { body: { target: "All" } });
  expect(await preview.text()).not.toContain("theirs");
});

test("every route below /v1 is an operation of the table", () => {
  const known = Object.values<Operation>(operations).map(({ method, path }) => `${method} ${path}`);
  const routes = api.app.routes.filter(({ method, path }) => method !== "ALL" && path.startsWith("/v1"));
  expect(routes.map(({ method, path }) => `${method} ${path}`).sort()).toEqual(known.sort());
});
