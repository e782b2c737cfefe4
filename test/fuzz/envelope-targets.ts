/** What is authenticated: a changed bit anywhere must be refused, as a value and at once. */
import { parseArgs } from "../../src/envelope/canonical-json.ts";
import {
  controllerChannel,
  daemonChannel,
  type Frame,
  frameKinds,
  type SessionSecrets,
} from "../../src/envelope/frame.ts";
import { hearHello, sayHello } from "../../src/envelope/handshake.ts";
import { readUnverified, signJwt, verifyJwt } from "../../src/envelope/jwt.ts";
import { trustFirst, trustStored } from "../../src/envelope/keyset.ts";
import { importPublicKey, importSigningKey } from "../../src/envelope/public-key.ts";
import {
  layouts,
  type StatementName,
  type StatementValues,
  sha256,
  statement,
  uuidBytes,
} from "../../src/envelope/statement.ts";
import { aegis } from "../../src/wire/gen/messages.js";
import { toLong } from "../../src/wire/whole.ts";
import { type FuzzTarget, taken } from "./fuzz.ts";
import { mutated, mutatedText, type Random } from "./random.ts";

const wire = aegis.cluster.v1;
const nodeKey = importSigningKey(new Uint8Array(32).fill(1));
const commandKey = importSigningKey(new Uint8Array(32).fill(2));
const tokenKey = importSigningKey(new Uint8Array(32).fill(3));
const rootKey = importSigningKey(new Uint8Array(32).fill(4));
const nodeId = "6f1c2b1e-3c1a-4d7e-8f59-0a1b2c3d4e5f";
const controllerId = "0b0e7c1a-55a4-4a39-9d3b-7f1f7a1c9a11";

const secrets: SessionSecrets = {
  nodeId,
  sessionId: sha256("a session"),
  toController: sha256("to the controller"),
  toDaemon: sha256("to the daemon"),
};

function keyset(version: number): Uint8Array {
  const entry = (key: typeof nodeKey, use: aegis.cluster.v1.KeyUse) => ({
    keyId: key.keyId,
    use,
    alg: wire.KeyAlg.KEY_ALG_ED25519,
    public: key.raw,
    state: wire.KeyState.KEY_STATE_ACTIVE,
  });
  const bytes = wire.ControllerKeySet.encode({
    controllerId: uuidBytes(controllerId) as Uint8Array,
    version: toLong(version),
    rootKey: rootKey.raw,
    keys: [entry(commandKey, wire.KeyUse.KEY_USE_COMMAND), entry(tokenKey, wire.KeyUse.KEY_USE_TOKEN)],
  }).finish();
  return wire.SignedKeySet.encode({
    keyset: bytes,
    signature: rootKey.sign(statement("keyset", { controllerId, version, keyset: bytes })),
  }).finish();
}

/** The daemon's end after ACCEPT, and a command frame for it. */
function session(): { open(frame: Frame): { kind: string }; frame: Frame } {
  const there = controllerChannel(secrets, commandKey, nodeKey);
  const here = daemonChannel(secrets, nodeKey, commandKey);
  here.open(there.seal("accept", Buffer.from("accept"), 1));
  return { open: (frame) => here.open(frame), frame: there.seal("command", Buffer.from("a command to run"), 2) };
}

function changedFrame(frame: Frame, by: Random): Frame {
  const number = (old: number) => by.pick([old + 1, old - 1, 0, -1, by.below(64), 2 ** 53, Number.NaN, old + 2 ** 32]);
  switch (by.below(5)) {
    case 0:
      return {
        ...frame,
        kind: by.pick(
          [...Object.values(frameKinds).map((one) => one.number), by.below(256)].filter((one) => one !== frame.kind),
        ),
      };
    case 1:
      return { ...frame, seq: number(frame.seq) };
    case 2:
      return { ...frame, timeMs: number(frame.timeMs) };
    case 3:
      return { ...frame, body: mutated(frame.body, by) };
    default:
      return { ...frame, auth: mutated(frame.auth, by) };
  }
}

const same = (left: Frame, right: Frame) =>
  left.kind === right.kind && left.seq === right.seq && left.timeMs === right.timeMs;

function randomStatement(by: Random): { name: StatementName; values: StatementValues<StatementName> } {
  const name = by.pick(Object.keys(layouts) as StatementName[]);
  const values: Record<string, unknown> = {};
  for (const [field, type] of Object.entries(layouts[name].fields)) {
    if (type === "id") values[field] = by.pick([nodeId, controllerId]);
    else if (type === "b16" || type === "b32") values[field] = by.bytes(type === "b16" ? 16 : 32);
    else if (type === "hash") values[field] = by.bytes(by.below(40));
    else if (type === "lp") values[field] = Buffer.from(by.bytes(by.below(9))).toString("latin1");
    else values[field] = by.below(2 ** 31);
  }
  return { name, values: values as StatementValues<StatementName> };
}

const inWords = (name: StatementName, values: object): string =>
  JSON.stringify([
    name,
    Object.values(values).map((value) => (value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value)),
  ]);

/** A field of the layout, and a value that it cannot hold. */
function unfit(name: StatementName, by: Random): [field: string, value: unknown] {
  const fields = Object.entries(layouts[name].fields).filter(([, type]) => type !== "hash" && type !== "lp");
  const [field, type] = by.pick(fields);
  if (type === "id") return [field, by.pick(["", nodeId.toUpperCase(), `${nodeId}0`, nodeId.replaceAll("-", "")])];
  if (type === "u32" || type === "u64")
    return [field, by.pick([-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY])];
  return [field, by.bytes(by.pick([0, 15, 17, 31, 33]))];
}

const spokenStatements = new Map<string, string>();
const nodeToken = signJwt(
  "node",
  {
    ...{ sub: nodeId, role: "edge", tid: "acme", cep: "https://c.example:50056", cap_hash: "x", iss: controllerId },
    ...{ aud: "aegis-controller", jti: controllerId, iat: 1, exp: 2 },
    cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: Buffer.from(nodeKey.raw).toString("base64url") } },
  } as const,
  tokenKey,
);
const keys = new Map([[tokenKey.kid, tokenKey]]);
const trusted = trustFirst(rootKey.keyId, [keyset(3)]);
const argTexts = [
  '{"command":"uname","args":["-a"]}',
  '{"a":1.5,"b":[true,null,{"c":"\\u00e9"}]}',
  "[]",
  '"x"',
  "1e21",
];

export const envelopeTargets: readonly FuzzTarget[] = [
  {
    name: "a changed frame is refused",
    run(by) {
      const { open, frame } = session();
      if (by.below(8) === 0) return taken(open(frame).kind !== "refused", "an honest frame");
      const changed = changedFrame(frame, by);
      const outcome = open(changed);
      if (
        outcome.kind !== "refused" &&
        !(
          same(frame, changed) &&
          Buffer.from(frame.body).equals(changed.body) &&
          Buffer.from(frame.auth).equals(changed.auth)
        )
      )
        throw new Error(`accepted ${JSON.stringify(changed)}`);
      if (open(frame).kind !== "refused") throw new Error("the session went on after a frame that did not verify");
      return outcome.kind === "refused" ? "refused" : "taken";
    },
  },
  {
    name: "no two statements are the same bytes",
    run(by) {
      const { name, values } = randomStatement(by);
      if (by.below(8) === 0) {
        const [field = "", bad] = unfit(name, by);
        try {
          statement(name, { ...values, [field]: bad } as StatementValues<StatementName>);
        } catch (error) {
          if (error instanceof RangeError) return "refused";
          throw error;
        }
        throw new Error(`${name} took ${String(bad)} for ${field}`);
      }
      const bytes = statement(name, values);
      const said = inWords(name, values);
      const digest = Buffer.from(sha256(bytes)).toString("base64");
      const before = spokenStatements.get(digest);
      if (before !== undefined && before !== said) throw new Error(`${before} and ${said} are the same bytes`);
      if (spokenStatements.size < 50_000) spokenStatements.set(digest, said);
      return "taken";
    },
  },
  {
    name: "a changed Hello is refused",
    run(by) {
      if (trusted.kind !== "trusted") throw new Error("the keyset does not verify");
      const streamId = controllerId;
      const hello = sayHello({
        nodeId,
        streamId,
        nodeKey,
        keyset: trusted.keyset,
        capabilities: by.bytes(by.below(40)),
        softwareVersion: "1",
        wallMs: 1,
      });
      const given = { nodeId, streamId, nodeKey, sealHello: hello.sealHello, signature: hello.signature };
      const changed =
        by.below(2) === 0
          ? { ...given, sealHello: mutated(given.sealHello, by) }
          : { ...given, signature: mutated(given.signature, by) };
      if (by.below(8) === 0) return taken(hearHello(given).kind === "heard", "an honest Hello");
      if (hearHello(changed).kind !== "refused") throw new Error("a changed Hello was heard");
      return "refused";
    },
  },
  {
    name: "a changed token is refused, and reading one unverified never throws",
    run(by) {
      const spice = [".", "..", "=", "-", "_", "A", "eyJhbGciOiJub25lIn0", "\n"];
      const text = by.below(8) === 0 ? nodeToken : mutatedText(nodeToken, by, spice);
      readUnverified("enrollment", text);
      readUnverified("node", text);
      const outcome = verifyJwt("node", text, { keys, issuer: controllerId });
      if (outcome.kind === "valid" && text !== nodeToken) throw new Error(`accepted ${text}`);
      if (verifyJwt("user", text, { keys, issuer: controllerId }).kind === "valid")
        throw new Error("a node token passed as a user token");
      return text === nodeToken ? taken(outcome.kind === "valid", "an honest token") : "refused";
    },
  },
  {
    name: "arguments have one reading or none",
    run(by) {
      const text = mutatedText(by.pick(argTexts), by, [
        '"__proto__":1',
        "1e400",
        "-0",
        '{"a":1,"a":2}',
        "\\u0061",
        " ",
        "9007199254740993",
        "[[[[",
        "]",
      ]);
      const bytes = Buffer.from(text);
      const outcome = parseArgs(bytes);
      if (outcome.kind !== "args") return "refused";
      if (JSON.stringify(outcome.value) !== bytes.toString("utf8")) throw new Error(`accepted ${text}`);
      if (/"__proto__"\s*:/.test(text)) throw new Error(`accepted __proto__ in ${text}`);
      return "taken";
    },
  },
  {
    name: "a changed keyset is refused or means the same",
    run(by) {
      if (trusted.kind !== "trusted") throw new Error("the keyset does not verify");
      const bytes = by.below(8) === 0 ? trusted.keyset.signed : mutated(trusted.keyset.signed, by);
      const outcomes = [trustFirst(rootKey.keyId, [bytes]), trustStored(rootKey, bytes)];
      for (const outcome of outcomes)
        if (outcome.kind === "trusted" && !Buffer.from(outcome.keyset.digest).equals(trusted.keyset.digest))
          throw new Error("another keyset was trusted");
      const isTrusted = outcomes.every(({ kind }) => kind === "trusted");
      return bytes === trusted.keyset.signed ? taken(isTrusted, "the honest keyset") : isTrusted ? "taken" : "refused";
    },
  },
  {
    name: "a key is usable or null",
    run(by) {
      const bytes = by.pick([by.bytes(by.below(40)), mutated(nodeKey.raw, by), nodeKey.raw]);
      const key = importPublicKey(bytes);
      return bytes === nodeKey.raw ? taken(key !== null, "an honest key") : key ? "taken" : "refused";
    },
  },
];
