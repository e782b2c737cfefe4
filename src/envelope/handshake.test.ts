/** What both ends make of the same words, apart from the sessions in test/session-handshake.test.ts. */
import { expect, test } from "bun:test";
import { hostIdentity, newKey, signedKeyset, strictKeys } from "../../test/support/strict-keys.ts";
import { maxBodyBytes } from "./frame.ts";
import { type AcceptInput, answerHello, hearHello, sayHello } from "./handshake.ts";

const strict = strictKeys();
const { nodeId, nodeKey } = hostIdentity(strict, 0);
const said = { nodeId, streamId: "9e107d9d-372b-4b68-a1b2-c3d4e5f60718", nodeKey, keyset: strict.keyset };

function hello() {
  const pending = sayHello({ ...said, capabilities: new Uint8Array(), softwareVersion: "1", wallMs: 7 });
  const heard = hearHello({ ...said, ...pending });
  if (heard.kind === "refused") throw new Error(heard.reason);
  return { pending, heard: heard.hello };
}

const input = (change: Partial<AcceptInput> = {}): AcceptInput => ({
  commandKey: strict.keys.command,
  keysetChain: [strict.keyset.signed],
  keysetVersion: 1,
  serverTimeMs: 1_767_225_600_000,
  limits: { maxBody: 1, maxWindow: 2, heartbeatSecs: 3 },
  mustRefresh: true,
  ...change,
});

test("both ends share a session, and what ACCEPT says arrives", () => {
  const { pending, heard } = hello();
  const answer = answerHello(heard, input());
  if (!answer) throw new Error("no answer");
  const accepted = pending.accept(answer.accept);
  expect(accepted).toMatchObject({
    kind: "accepted",
    serverTimeMs: 1_767_225_600_000,
    limits: { maxBody: 1, maxWindow: 2, heartbeatSecs: 3 },
    mustRefresh: true,
  });
  if (accepted.kind === "accepted") expect(accepted.channel.sessionId).toEqual(answer.channel.sessionId);
});

test("a keyset is handed on and kept as it was signed, with what this version does not know", () => {
  const { root, keys, controllerId } = strict;
  const unknown = Buffer.from("c23e0568656c6c6f", "hex");
  const signed = Buffer.concat([signedKeyset({ controllerId, version: 2, root, ...keys }), unknown]);
  const { pending, heard } = hello();
  const answer = answerHello(heard, input({ keysetChain: [strict.keyset.signed, signed], keysetVersion: 2 }));
  const accepted = answer && pending.accept(answer.accept);
  if (accepted?.kind !== "accepted") throw new Error(JSON.stringify(accepted));
  expect(Buffer.from(accepted.keyset.signed)).toEqual(signed);
});

test("a Hello is answered once", () => {
  const { pending, heard } = hello();
  const [one, two] = [answerHello(heard, input()), answerHello(heard, input())];
  expect(one && pending.accept(one.accept).kind).toBe("accepted");
  expect(two && pending.accept(two.accept)).toEqual({ kind: "refused", reason: "accept_expected" });
});

test("two sessions of the same Hello have nothing in common", () => {
  const { heard } = hello();
  const [one, two] = [answerHello(heard, input()), answerHello(heard, input())];
  expect(one?.channel.sessionId).not.toEqual(two?.channel.sessionId);
});

test("a Hello is decoded only after its signature", () => {
  const garbage = Buffer.from("ff".repeat(10), "hex");
  const heard = hearHello({ ...said, sealHello: garbage, signature: new Uint8Array(64) });
  expect(heard).toEqual({ kind: "refused", reason: "hello_signature" });
});

test("a Hello of another stream, another node or another key is none", () => {
  const pending = sayHello({ ...said, capabilities: new Uint8Array(), softwareVersion: "1", wallMs: 7 });
  const id = "00000000-0000-4000-8000-000000000000";
  for (const change of [{ streamId: id }, { nodeId: id }, { nodeKey: newKey() }])
    expect(hearHello({ ...said, ...pending, ...change })).toEqual({ kind: "refused", reason: "hello_signature" });
  for (const change of [{ streamId: "" }, { nodeId: "x" }, { streamId: id.toUpperCase().replace("4", "A") }])
    expect(hearHello({ ...said, ...pending, ...change })).toEqual({ kind: "refused", reason: "hello_malformed" });
});

test("20 an ACCEPT over the limit is refused before a byte of it is looked at", () => {
  const { pending } = hello();
  let touched = false;
  const body = new Proxy(new Uint8Array(), {
    get(_target, property) {
      if (property === "length") return maxBodyBytes + 1;
      touched = true;
      return undefined;
    },
  });
  const accept = { kind: 0x10, seq: 0, timeMs: 0, body, auth: new Uint8Array(64) };
  expect(pending.accept(accept)).toEqual({ kind: "refused", reason: "accept_malformed" });
  expect(touched).toBe(false);
});
