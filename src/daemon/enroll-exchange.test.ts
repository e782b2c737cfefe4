import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import {
  hostIdentity,
  newKey,
  rawText,
  type StrictKeys,
  signedKeyset,
  strictKeys,
} from "../../test/support/strict-keys.ts";
import { signEnrollGrant, verifyEnrollProof, verifyRekeyProof } from "../envelope/enrollment.ts";
import type { Claims } from "../envelope/jwt.ts";
import { AegisError } from "../errors.ts";
import { aegis } from "../wire/gen/messages.js";
import { type ExchangeInput, exchange } from "./enroll-exchange.ts";
import type { ControllerLink } from "./link.ts";

const wire = aegis.cluster.v1;
const nowMs = 1_767_225_600_000;
const nonce = new Uint8Array(32).fill(7);

type Challenge = Parameters<ControllerLink["challenge"]>[0];
type Made = Partial<{ nodeToken: string; chain: Uint8Array[] }>;

/** A controller with its own keys that answers as the test wants; what a holder of those keys cannot do, nobody can. */
function setup(strict: StrictKeys, made: Made = {}, change: Partial<ExchangeInput> = {}) {
  const { nodeId = randomUUID(), key = newKey() } = change;
  const { nodeToken } = { ...hostIdentity(strict, nowMs, { nodeId, nodeKey: key }), ...made };
  const claims: Claims<"enrollment"> = {
    ...{
      tid: "acme",
      sub: "web-1",
      jti: randomUUID(),
      exp: 2e9,
      nbf: 0,
      aud: "edge-enrollment",
      iss: strict.controllerId,
    },
    ...{ cep: "https://localhost:1", crk: strict.root.kid, seal: "strict" },
  };
  const heard: { attest?: object; challenge?: Challenge } = {};
  const link: ControllerLink = {
    open: () => Promise.reject(new Error("no stream here")),
    rotate: () => Promise.reject(new Error("no rotation here")),
    close() {},
    async attest(request) {
      heard.attest = request;
      return wire.AttestNodeResponse.decode(wire.AttestNodeResponse.encode({ challengeNonce: nonce }).finish());
    },
    async challenge(request) {
      heard.challenge = request;
      const answer = {
        nodeSecurityToken: nodeToken,
        keysetChain: (made.chain ?? [strict.keyset.signed]).map((signed) => wire.SignedKeySet.decode(signed)),
        sealMode: wire.SealMode.SEAL_MODE_STRICT,
        enrollGrant: signEnrollGrant(strict.keys.command, {
          ...{ nodeId, nodePublicKey: key.raw, nonce, keyset: strict.keyset.bytes },
          nodeToken: Buffer.from(nodeToken),
        }),
      };
      return wire.ChallengeNodeResponse.decode(wire.ChallengeNodeResponse.encode(answer).finish());
    },
  };
  const input: ExchangeInput = { oldKey: null, token: "h.c.s", claims, known: null, ...change, nodeId, key };
  return { nodeToken, heard, input, done: exchange(link, input) };
}

const message = async (promise: Promise<unknown>) => {
  const thrown: unknown = await promise.then(
    () => "believed",
    (error: unknown) => error,
  );
  return thrown instanceof AegisError ? thrown.message : thrown;
};

test("what the controller granted is what comes out, and every proof it asked for was made", async () => {
  const strict = strictKeys();
  const oldKey = newKey();
  const { done, heard, nodeToken, input } = setup(strict, {}, { oldKey });
  expect(await done).toMatchObject({ nodeToken, keyset: { controllerId: strict.controllerId } });
  expect(heard.attest).toMatchObject({ role: 4, capabilities: {}, sealVersions: [1] });
  const { challengeSignature, enrollProof, rekeyProof, oldPublicKey } = heard.challenge ?? {};
  const none = new Uint8Array();
  expect(input.key.verify(nonce, challengeSignature ?? none)).toBe(true);
  const { nodeId, key } = input;
  const proof = { nodeId, nodePublicKey: key.raw, enrollmentToken: Buffer.from("h.c.s"), nonce };
  expect(verifyEnrollProof(key, { ...proof, rootKeyId: strict.root.keyId }, enrollProof ?? none)).toBe(true);
  expect(oldPublicKey).toEqual(oldKey.raw);
  const rekey = { nodeId, oldPublicKey: oldKey.raw, newPublicKey: key.raw, nonce };
  expect(verifyRekeyProof(oldKey, rekey, rekeyProof ?? none)).toBe(true);
});

test("a token that is not this node's, tenant's and key's is refused, although it was granted", async () => {
  const strict = strictKeys();
  const cases: Array<[Partial<Claims<"node">>, string]> = [
    [{ sub: randomUUID() }, "its node token is for host "],
    [{ tid: "other" }, "is for tenant other, not for acme"],
    [{ cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: rawText(newKey()) } } }, "is for another key"],
    [{ iss: randomUUID() }, "does not verify (wrong_issuer)"],
    [{ aud: "aegis-edge" as "aegis-controller" }, "does not verify (wrong_audience)"],
  ];
  for (const [claims, expected] of cases) {
    const [nodeId, key] = [randomUUID(), newKey()];
    const { nodeToken } = hostIdentity(strict, nowMs, { nodeId, nodeKey: key, claims });
    expect(await message(setup(strict, { nodeToken }, { nodeId, key }).done)).toContain(expected);
  }
});

test("a host that knew newer keys of this root does not go back", async () => {
  const strict = strictKeys();
  const { controllerId, root } = strict;
  const newer = signedKeyset({
    controllerId,
    version: 2,
    root,
    command: strict.keys.command,
    token: strict.keys.token,
  });
  const first = await setup(strict, { chain: [strict.keyset.signed, newer] }).done.catch((error: unknown) => error);
  // The grant covers version 1, so version 2 cannot have been what was granted.
  expect((first as AegisError).message).toContain("its grant is not signed");
  const known = { ...strict.keyset, version: 2 };
  expect(await message(setup(strict, {}, { known }).done)).toContain("keyset_rollback");
});

test("an issuer that names no root is asked nothing strict and believed only as far as the answer fits", async () => {
  const strict = strictKeys();
  const base = setup(strict);
  await base.done;
  const { nodeToken, input } = base;
  const { crk: _crk, seal: _seal, ...claims } = input.claims;
  const plain = (nodeId: string) => setup(strict, { nodeToken }, { claims, nodeId, key: input.key });
  const fits = plain(input.nodeId);
  expect(await fits.done).toMatchObject({ keyset: null, nodeToken });
  expect(fits.heard.attest).toMatchObject({ sealVersions: [] });
  expect(fits.heard.challenge?.enrollProof).toBeUndefined();
  expect(await message(plain(randomUUID()).done)).toContain("its node token is for host");
  const otherKey = setup(strict, { nodeToken }, { claims, nodeId: input.nodeId, key: newKey() });
  expect(await message(otherKey.done)).toContain("its node token is for another key");
});
