/** The REST API without sockets or hosts: a database in memory, tokens at hand, a dispatcher that does as it is told. */
import { type App, type AppOptions, createApp } from "../../src/controller/http/app.ts";
import { createMcpHub } from "../../src/controller/http/mcp.ts";
import { createInventory } from "../../src/controller/inventory.ts";
import { addOperatorToken } from "../../src/controller/operator-tokens.ts";
import { createRevocations } from "../../src/controller/revocations.ts";
import { createTenantAdmin } from "../../src/controller/tenants.ts";
import { silentLog } from "../../src/platform/log.ts";
import type { ScriptedCall } from "./scripted-dispatcher.ts";
import { type TestFleet, testFleet } from "./test-fleet.ts";

export interface TestApi extends TestFleet {
  app: App;
  /** What a dispatched call does at once. */
  react: (call: ScriptedCall) => void;
  /** A new token, with everything in acme unless told otherwise. */
  token(change?: {
    scopes?: string[];
    contexts?: string[];
    tenantId?: string;
    expiresAt?: number;
    name?: string;
  }): Promise<{ token: string; tokenId: string }>;
  /** One request with an admin's token, or with `token`; a body that is no string is sent as JSON. */
  request(method: string, path: string, options?: RequestOptions): Promise<Response>;
  close(): Promise<void>;
}

export interface RequestOptions {
  body?: unknown;
  /** null = none. */
  token?: string | null;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export async function testApi(change: Partial<AppOptions> = {}): Promise<TestApi> {
  const api: Pick<TestApi, "react"> = { react: () => {} };
  const made = await testFleet((call) => api.react(call));
  const { store, nodes, clock, targets, fleet } = made;
  const time = clock.now;
  const revocations = createRevocations({ store, sessions: nodes, clock, log: silentLog });
  const app = createApp({
    ...{ store, nodes, targets, fleet, clock, time, log: silentLog },
    inventory: createInventory({ store, sessions: nodes, targets, time, log: silentLog }),
    tenants: createTenantAdmin({ store, revocations, time, log: silentLog }),
    hostNames: ["controller.example", "*.fleet.example"],
    enrollment: {
      issue: async ({ ttlMs }) => ({
        token: "header.payload.signature",
        expiresAt: time() + ttlMs,
        controllerEndpoint: "https://controller.example:50056",
      }),
      attest: () => {
        throw new Error("no host enrolls here");
      },
      challenge: () => Promise.reject(new Error("no host enrolls here")),
    },
    ready: async () => true,
    mcp: createMcpHub({ fleet, nodes, store, clock, log: silentLog }),
    ...change,
  });
  const token: TestApi["token"] = async (wanted = {}) => {
    const {
      expiresAt = null,
      scopes = ["aegis.admin"],
      contexts = ["default"],
      name = "ann",
      tenantId = "acme",
    } = wanted;
    const made = await addOperatorToken(store, { name, tenantId, scopes, contexts, expiresAt }, time());
    return { token: made.token.reveal(), tokenId: made.tokenId };
  };
  const admin = (await token()).token;
  return Object.assign(api, {
    ...{ app, ...made, token },
    async request(method: string, path: string, { body, token: bearer = admin, headers, signal }: RequestOptions = {}) {
      const text = typeof body === "string" || body === undefined ? body : JSON.stringify(body);
      const request = new Request(`http://localhost${path}`, {
        method,
        headers: {
          ...(bearer === null ? {} : { authorization: `Bearer ${bearer}` }),
          ...(text === undefined ? {} : { "content-type": "application/json" }),
          ...headers,
        },
        ...(text === undefined ? {} : { body: text }),
        ...(signal ? { signal } : {}),
      });
      return await app.fetch(request);
    },
    close: () => store.close(),
  });
}
