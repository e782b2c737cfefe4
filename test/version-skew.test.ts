/** Two ends that speak no common version of a protocol say so, on either side: which versions, and what to update. */
import { afterEach, describe, expect, test } from "bun:test";
import { createApiClient } from "../src/api/client.ts";
import { apiVersionHeader } from "../src/api/version.ts";
import { createChallenges } from "../src/controller/challenges.ts";
import { createEnrollment } from "../src/controller/enrollment.ts";
import { verifyRefusal } from "../src/envelope/refusal.ts";
import { Secret } from "../src/platform/log.ts";
import { version } from "../src/version.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { playground } from "./support/aegis.ts";
import { sealed } from "./support/rogue.ts";
import { settled } from "./support/scripted-host.ts";
import { controllerStage, daemonStage } from "./support/stages.ts";
import { causeOf } from "./support/strict-daemon.ts";
import { newKey } from "./support/strict-keys.ts";
import { testApi } from "./support/test-api.ts";

const wire = aegis.cluster.v1;
const cleanUp: Array<() => Promise<unknown> | unknown> = [];
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
});

describe("of the sealed protocol", () => {
  test("a host that hears a version it does not know", async () => {
    const stage = daemonStage();
    for (const [chosen, older] of [
      [7, "this host"],
      [0, "the controller"],
    ] as const) {
      const session = await stage.begin(false);
      stage.rogue.send(sealed(stage.rogue.accept({ body: { version: chosen } })));
      expect(causeOf(await session.ended)).toBe(
        `the controller speaks version ${chosen} of the sealed protocol, and this host (aegis ${version}) speaks 1: update ${older}, with aegis update there`,
      );
    }
  });

  test("a controller whose host offers none that it knows: told by a signature that the host can check", async () => {
    const stage = await controllerStage();
    for (const [versions, shown, older] of [
      [[2, 3], "2, 3", "this controller"],
      [[], "none", "the host"],
    ] as const) {
      await stage.rogue.dial();
      const hello = stage.rogue.hello({ body: { versions: [...versions] } });
      stage.rogue.send(hello);
      await settled();
      expect(stage.rogue.ended).toMatchObject({
        status: 9,
        message: `the host speaks version ${shown} of the sealed protocol, and this controller (aegis ${version}) speaks 1: update ${older}, with aegis update there`,
      });
      const { reason, signature } = wire.SealRefusal.decode(stage.rogue.ended?.refusal ?? new Uint8Array());
      expect(reason).toBe(wire.GoodbyeReason.GOODBYE_REASON_UPGRADE_REQUIRED);
      const sealHello = hello.hello?.sealHello ?? new Uint8Array();
      const said = { nodeId: stage.identity.nodeId, sealHello, reason, retryAfterMs: 0 };
      expect(verifyRefusal(stage.strict.keys.command, said, signature)).toBe(true);
      expect(stage.sessions.size).toBe(0);
    }
    expect(stage.log.find("hello_refused")).toMatchObject({ reason: "version", versions: [2, 3] });
  });

  test("nobody else learns a word of it: a stranger with another version is a stranger", async () => {
    const stage = await controllerStage();
    await stage.rogue.dial();
    stage.rogue.send(stage.rogue.hello({ body: { versions: [2] }, signer: newKey() }));
    await settled();
    expect(stage.rogue.ended).toMatchObject({ status: 16, refusal: null });
  });

  test("a host of ours that enrolls and offers others is not taken for one that offers none", async () => {
    const { strict, store, clock, time, log } = await controllerStage();
    const enrollment = createEnrollment({
      ...{ store, keys: strict.keys, clock, time, log, pins: [], publicEndpoint: "controller.example:50056" },
      ...{ challenges: createChallenges(clock), onAdmitted: () => {} },
    });
    const attest = (sealVersions: number[]) =>
      enrollment.attest(
        { nodeId: crypto.randomUUID(), role: 4, publicKey: newKey().raw, capabilities: {}, sealVersions },
        "192.0.2.1",
      );
    expect(() => attest([9])).toThrow(/this host speaks version 9 of the sealed protocol.*update this controller/);
    expect(attest([9, 1]).challengeNonce).toHaveLength(32);
    expect(attest([]).challengeNonce).toHaveLength(32);
  });
});

describe("of the API", () => {
  test("a controller that is asked in another one says which it speaks", async () => {
    const api = await testApi();
    for (const [path, hint] of [
      ["/v2/whoami", "update the controller: aegis update, there"],
      ["/v0/whoami", "update what asks: aegis update"],
    ] as const) {
      const answer = await api.request("GET", path, { token: null });
      expect(answer.status).toBe(404);
      const asked = path.slice(2, 3);
      expect(await answer.json()).toMatchObject({
        error: {
          code: "not_found",
          message: `this controller (aegis ${version}) speaks version 1 of the API, and was asked in version ${asked}`,
          hint,
        },
      });
    }
    expect((await api.request("GET", "/healthz", { token: null })).headers.get(apiVersionHeader)).toBe("1");
  });

  /** A controller of another time, which knows nothing at /v1. */
  function other(spoken: number): string {
    const server = Bun.serve({
      port: 0,
      fetch: () =>
        Response.json(
          { error: { code: "not_found", message: "there is nothing at /v1/whoami", hint: null } },
          { status: 404, headers: { [apiVersionHeader]: String(spoken) } },
        ),
    });
    cleanUp.push(() => server.stop(true));
    return `http://127.0.0.1:${server.port}`;
  }

  test("a client of one that speaks another says which, and what to update", async () => {
    const url = other(2);
    const api = createApiClient({ url, token: new Secret("aegis_x"), caPem: null });
    await expect(api.whoami()).rejects.toMatchObject({
      message: `${url} speaks version 2 of the API, and this aegis (${version}) speaks 1`,
      hint: "update this one: aegis update",
    });
    await expect(
      createApiClient({ url: other(0), token: new Secret("aegis_x"), caPem: null }).whoami(),
    ).rejects.toMatchObject({ hint: "update the controller: aegis update, there" });
  });

  test("the executable does", async () => {
    const place = playground();
    cleanUp.push(() => place.close());
    const desk = place.machine("desk", { AEGIS_CONTROLLER: other(2), AEGIS_USER_TOKEN: "aegis_x" });
    const asked = await desk.run("whoami");
    expect(asked.exit).not.toBe(0);
    expect(asked.stderr).toContain("speaks version 2 of the API");
    expect(asked.stderr).toContain("aegis update");
  });
});
