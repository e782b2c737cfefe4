/** Every layout, key and frame of the strict protocol against a second implementation that shares no line with ours. */
import { describe, expect, test } from "bun:test";
import { createPrivateKey } from "node:crypto";
import { join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import vectors from "../../test/vectors/strict-vectors.json" with { type: "json" };
import { aegis } from "../wire/gen/messages.js";
import { toLong, whole } from "../wire/whole.ts";
import { controllerChannel, daemonChannel, type FrameKind, frameKinds } from "./frame.ts";
import { agree, hearHello } from "./handshake.ts";
import { type Claims, readUnverified, signJwt, type TokenKind, verifyJwt } from "./jwt.ts";
import { advance, trustFirst, trustStored } from "./keyset.ts";
import {
  readOperatorChallenge,
  readOperatorProof,
  signOperatorChallenge,
  signOperatorProof,
  verifyOperatorProof,
} from "./operator.ts";
import { importPublicKey, importSigningKey, type SigningKey } from "./public-key.ts";
import { progressChain } from "./receipt.ts";
import { layouts, type StatementName, statement } from "./statement.ts";

const hex = (text: string): Uint8Array => Buffer.from(text, "hex");
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const signingKey = (name: string): SigningKey =>
  importSigningKey(hex(vectors.keys[name as keyof typeof vectors.keys].seed));

describe("statements", () => {
  test("each layout of the table has a vector, and each vector a layout", () => {
    expect([...new Set(vectors.statements.map((one) => one.name))].sort()).toEqual(Object.keys(layouts).sort());
  });

  for (const { name, case: what, fields, statement: expected, signer, signature } of vectors.statements) {
    test(`${name}: ${what}`, () => {
      const values = Object.fromEntries(
        Object.entries(fields).map(([field, value]) => [field, typeof value === "object" ? hex(value.hex) : value]),
      );
      // The table knows which fields a name has; the vectors file cannot.
      const said = statement(name as StatementName, values as never);
      expect(text(said)).toBe(expected);
      if (!signer || !signature) return;
      const key = signingKey(signer);
      expect(text(key.sign(said))).toBe(signature);
      expect(key.verify(said, hex(signature))).toBe(true);
    });
  }
});

test("keys: the public half and the key id of each seed", () => {
  for (const [name, { public: raw, keyId }] of Object.entries(vectors.keys)) {
    const key = signingKey(name);
    expect([text(key.raw), text(key.keyId)]).toEqual([raw, keyId]);
    expect(importPublicKey(hex(raw))?.kid).toBe(hex(keyId).toBase64({ alphabet: "base64url", omitPadding: true }));
  }
});

describe("session", () => {
  const { session, nodeId, streamId, frames } = vectors;
  const share = (raw: string) =>
    createPrivateKey({
      key: Buffer.concat([hex("302e020100300506032b656e04220420"), hex(raw)]),
      format: "der",
      type: "pkcs8",
    });
  const transcript = { nodeId, streamId, sealHello: hex(session.sealHello), acceptBody: hex(session.acceptBody) };

  function secrets(end: "daemon" | "controller") {
    const own = end === "daemon" ? session.daemonSharePrivate : session.controllerSharePrivate;
    const peer = end === "daemon" ? session.controllerShare : session.daemonShare;
    const agreed = agree(share(own), hex(peer), transcript);
    if (!agreed) throw new Error("no agreement");
    return agreed;
  }

  test("both ends come to the same id and keys", () => {
    for (const end of ["daemon", "controller"] as const) {
      const { sessionId, toController, toDaemon } = secrets(end);
      expect(text(sessionId)).toBe(session.sessionId);
      expect(text(toController)).toBe(session.toController);
      expect(text(toDaemon)).toBe(session.toDaemon);
    }
  });

  test("a Hello is heard, field by field", () => {
    const heard = hearHello({
      nodeId,
      streamId,
      sealHello: hex(session.sealHello),
      signature: hex(session.helloSignature),
      nodeKey: signingKey("node"),
    });
    expect(heard).toMatchObject({
      kind: "heard",
      hello: {
        nodeId,
        controllerId: vectors.controllerId,
        keysetVersion: 1,
        softwareVersion: "0.1.0",
        wallMs: vectors.timeMs,
      },
    });
    if (heard.kind !== "heard") return;
    expect(text(heard.hello.capabilities)).toBe(session.capabilities);
    expect(text(heard.hello.x25519)).toBe(session.daemonShare);
  });

  test("each kind of frame is sealed to the same bytes, and opened at the other end", () => {
    expect(frames.map((frame) => frame.name).sort()).toEqual(Object.keys(frameKinds).sort());
    const controller = controllerChannel(secrets("controller"), signingKey("command"), signingKey("node"));
    const daemon = daemonChannel(secrets("daemon"), signingKey("node"), signingKey("command"));
    for (const { name, kind, seq, timeMs, body, auth, message } of frames) {
      const down = frameKinds[name as FrameKind].direction === "c2d";
      const [from, to] = down ? [controller, daemon] : [daemon, controller];
      const frame = from.seal(name as never, hex(body), timeMs);
      expect({ ...frame, body: text(frame.body), auth: text(frame.auth) }).toEqual({ kind, seq, timeMs, body, auth });
      expect(to.open(frame)).toMatchObject({ kind: "frame", frame: name, timeMs });

      const wire = down ? aegis.cluster.v1.EdgeCommand : aegis.cluster.v1.EdgeEvent;
      const sealed = { ...frame, seq: toLong(seq), timeMs: toLong(timeMs) };
      expect(text(wire.encode({ sealed }).finish())).toBe(message);
      const received = wire.decode(hex(message)).sealed;
      expect({ seq: whole(received?.seq), timeMs: whole(received?.timeMs) }).toEqual({ seq, timeMs });
    }
  });
});

test("progress chain: each link", () => {
  const chain = progressChain();
  expect(text(chain.value)).toBe("00".repeat(32));
  for (const { body, value } of vectors.progressChain) {
    chain.add(hex(body));
    expect(text(chain.value)).toBe(value);
  }
  expect(chain.frames).toBe(vectors.progressChain.length);
});

test("operators: a host's challenge is read, and a proof is made and verified, byte for byte", () => {
  const { operator, nodeId } = vectors;
  const key = signingKey("operator");
  const challenge = readOperatorChallenge(hex(operator.challenge), { nodeId, tenant: "acme" });
  if (!challenge) throw new Error("the challenge is refused");
  expect(challenge).toMatchObject({ hostName: "web-1", contexts: ["ops", "deploy"] });
  expect(challenge.key.kid).toBe(signingKey("node").kid);
  const remade = signOperatorChallenge(signingKey("node"), { nodeId, tenant: "acme", ...challenge });
  expect(text(remade)).toBe(operator.challenge);

  const proof = readOperatorProof(hex(operator.proof));
  if (!proof) throw new Error("the proof is refused");
  const argsJson = Buffer.from(operator.argsJson);
  const call = { nodeId, tenant: "acme", context: "ops", tool: "cmd.run", argsJson, deadlineMs: 60_000 };
  expect(verifyOperatorProof(key, call, proof)).toBe(true);
  expect(text(signOperatorProof(key, call, proof))).toBe(operator.proof);
  expect(text(proof.challenge)).toBe(text(challenge.challenge));
});

test("keysets: trusted from the root's key id, moved to another root, read again from disk", () => {
  const { first, next } = vectors.keysets;
  const trusted = trustFirst(signingKey("root").keyId, [hex(first)]);
  if (trusted.kind === "refused") throw new Error(trusted.reason);
  expect(trusted.keyset).toMatchObject({ controllerId: vectors.controllerId, version: 1 });
  expect(trusted.keyset.commandKey.kid).toBe(signingKey("command").kid);
  expect([...trusted.keyset.tokenKeys.keys()]).toEqual([signingKey("token").kid]);
  const moved = advance(trusted.keyset, [hex(next)]);
  if (moved.kind === "refused") throw new Error(moved.reason);
  expect(moved.keyset.rootKey.kid).toBe(signingKey("new-root").kid);
  expect(trustStored(signingKey("new-root"), hex(next)).kind).toBe("trusted");
});

describe("tokens", () => {
  for (const [kind, { claims, token }] of Object.entries(vectors.tokens)) {
    test(`${kind}: the same text, read the same way`, () => {
      // Lists stand in the file as objects.
      const said = Object.fromEntries(
        Object.entries(claims).map(([name, value]) => [
          name,
          name === "pin" || name === "scopes" ? Object.values(value) : value,
        ]),
      );
      const key = signingKey("token");
      const options = { keys: new Map([[key.kid, key]]), issuer: vectors.controllerId };
      expect(signJwt(kind as TokenKind, said as Claims<TokenKind>, key)).toBe(token);
      expect(verifyJwt(kind as TokenKind, token, options)).toEqual({
        kind: "valid",
        claims: said as Claims<TokenKind>,
      });
      expect(readUnverified(kind as TokenKind, token)).toEqual(said as Claims<TokenKind>);
    });
  }
});

const python = "/usr/bin/python3";
needs(`file:${python}`, "file:/usr/lib/python3/dist-packages/cryptography/__init__.py")(
  "the committed vectors are what the script writes now",
  async () => {
    const folder = join(import.meta.dir, "..", "..", "test", "vectors");
    const script = Bun.spawnSync([python, join(folder, "make-strict-vectors.py")]);
    expect(script.stderr.toString()).toBe("");
    const committed = await Bun.file(join(folder, "strict-vectors.json")).text();
    expect(script.stdout.toString() === committed).toBe(true);
  },
);
