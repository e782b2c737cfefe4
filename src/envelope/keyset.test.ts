/** A host follows its controller's keys only along what its pinned root has signed. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { newKey, signedKeyset } from "../../test/support/strict-keys.ts";
import { aegis } from "../wire/gen/messages.js";
import { toLong } from "../wire/whole.ts";
import { advance, type KeysetOutcome, trustFirst, trustStored, withWithdrawn } from "./keyset.ts";
import { importSigningKey, newSeed } from "./public-key.ts";
import { sha256, statement } from "./statement.ts";

const { ControllerKeySet, SignedKeySet, KeyAlg, KeyState, KeyUse } = aegis.cluster.v1;

const controllerId = randomUUID();
const [root, command, token] = [newKey(), newKey(), newKey()];
type Change = Partial<Parameters<typeof signedKeyset>[0]>;
const make = (change: Change = {}) => signedKeyset({ controllerId, version: 1, root, command, token, ...change });

function trusted(outcome: KeysetOutcome) {
  if (outcome.kind === "refused") throw new Error(outcome.reason);
  return outcome.keyset;
}
const first = () => trusted(trustFirst(root.keyId, [make()]));

describe("the first keyset", () => {
  test("is the one whose root the token named", () => {
    expect(first()).toMatchObject({ controllerId, version: 1 });
    expect(first().digest).toEqual(sha256(first().bytes));
  });
  test("not one of another root, though it signs itself", () => {
    expect(trustFirst(root.keyId, [make({ root: newKey() })])).toEqual({ kind: "refused", reason: "keyset_root" });
  });
  test("not one that names the root and is signed by somebody else", () => {
    const forged = SignedKeySet.decode(make());
    forged.signature = newKey().sign(forged.keyset);
    const outcome = trustFirst(root.keyId, [SignedKeySet.encode(forged).finish()]);
    expect(outcome).toEqual({ kind: "refused", reason: "keyset_signature" });
  });
  test("not none, and not what is none", () => {
    expect(trustFirst(root.keyId, [])).toMatchObject({ reason: "keyset_missing" });
    for (const bytes of [Buffer.from("ff", "hex"), new Uint8Array()])
      expect(trustFirst(root.keyId, [bytes])).toMatchObject({ reason: "keyset_malformed" });
  });
  test("the chain behind it is followed", () => {
    expect(trusted(trustFirst(root.keyId, [make(), make({ version: 2 })])).version).toBe(2);
    expect(trustFirst(root.keyId, [make(), make({ version: 2, root: newKey() })])).toMatchObject({ kind: "refused" });
  });
});

describe("moving on", () => {
  const next = newKey();
  const cases: Array<[what: string, chain: Uint8Array[], outcome: string | number]> = [
    ["a newer one", [make({ version: 7 })], 7],
    ["several", [make({ version: 2 }), make({ version: 3 })], 3],
    ["the same again", [make()], 1],
    ["46 a lower version", [make({ version: 2 }), make({ version: 1, command: newKey() })], "keyset_rollback"],
    ["47 the same version with other bytes", [make({ command: newKey() })], "keyset_equivocation"],
    ["48 one that another root signed", [make({ version: 2, root: newKey() })], "keyset_signature"],
    ["49 another root, with both signatures", [make({ version: 2, root: next, formerRoot: root })], 2],
    [
      "50 three roots behind",
      (() => {
        const [b, c, d] = [newKey(), newKey(), newKey()];
        return [
          make({ version: 2, root: b, formerRoot: root }),
          make({ version: 5, root: c, formerRoot: b }),
          make({ version: 6, root: d, formerRoot: c }),
          make({ version: 9, root: d }),
        ];
      })(),
      9,
    ],
    ["another controller's", [make({ version: 2, controllerId: randomUUID() })], "keyset_controller"],
    ["none", [], "keyset_missing"],
    ["garbage behind a good one", [make({ version: 2 }), Buffer.from("ff", "hex")], "keyset_malformed"],
    ["no version", [make({ version: 0 })], "keyset_malformed"],
  ];
  for (const [what, chain, expected] of cases)
    test(what, () => {
      const outcome = advance(first(), chain);
      if (typeof expected === "number") expect(trusted(outcome).version).toBe(expected);
      else expect(outcome).toEqual({ kind: "refused", reason: expected as never });
    });

  test("49 another root with one signature: the old one's, or the new one's", () => {
    const both = SignedKeySet.decode(make({ version: 2, root: next, formerRoot: root }));
    const oldOnly = SignedKeySet.encode({ keyset: both.keyset, signature: both.signature }).finish();
    const newOnly = SignedKeySet.encode({ keyset: both.keyset, signature: both.newRootSignature }).finish();
    expect(advance(first(), [oldOnly])).toMatchObject({ reason: "keyset_root" });
    expect(advance(first(), [newOnly])).toMatchObject({ reason: "keyset_signature" });
  });

  test("after a change of root the old one signs nothing", () => {
    const moved = trusted(advance(first(), [make({ version: 2, root: next, formerRoot: root })]));
    expect(advance(moved, [make({ version: 3 })])).toMatchObject({ reason: "keyset_signature" });
  });
});

describe("what was stored", () => {
  test("is read again only with the root it was stored with", () => {
    expect(trusted(trustStored(root, make({ version: 3 }))).version).toBe(3);
    expect(trustStored(newKey(), make())).toMatchObject({ reason: "keyset_root" });
    const moved = newKey();
    const signed = make({ version: 2, root: moved, formerRoot: root });
    expect(trusted(trustStored(moved, signed)).version).toBe(2);
    expect(trustStored(root, signed)).toMatchObject({ reason: "keyset_root" });
  });
  test("with a byte changed is not", () => {
    const signed = Uint8Array.from(make());
    signed[40] = (signed[40] ?? 0) ^ 1;
    expect(trustStored(root, signed).kind).toBe("refused");
  });
  test("with fields of a later version is read, and its digest is of the bytes that were signed", () => {
    const unknown = Buffer.from("c23e0568656c6c6f", "hex");
    const inner = Buffer.concat([SignedKeySet.decode(make()).keyset, unknown]);
    const signed = Buffer.concat([resigned(inner), unknown]);
    const keyset = trusted(trustStored(root, signed));
    expect(keyset.digest).toEqual(sha256(inner));
    expect(Buffer.from(keyset.signed)).toEqual(signed);
  });
});

/** These keyset bytes under the root's signature. */
function resigned(keyset: Uint8Array): Uint8Array {
  const version = 1;
  return SignedKeySet.encode({
    keyset,
    signature: root.sign(statement("keyset", { controllerId, version, keyset })),
  }).finish();
}

describe("keys in a keyset", () => {
  type Entry = aegis.cluster.v1.ControllerKey.$Properties;
  const entry = (change: Entry = {}, key = newKey()): Entry => ({
    keyId: key.keyId,
    use: KeyUse.KEY_USE_COMMAND,
    alg: KeyAlg.KEY_ALG_ED25519,
    public: key.raw,
    state: KeyState.KEY_STATE_ACTIVE,
    ...change,
  });
  const withKeys = (...keys: Entry[]) =>
    trustFirst(root.keyId, [
      make({
        change: (keyset) => {
          keyset.keys = keys;
        },
      }),
    ]);

  test("without an active command key, or with two, a keyset is refused", () => {
    for (const keys of [
      [],
      [entry({ state: KeyState.KEY_STATE_NEXT })],
      [entry(), entry()],
      [entry({ use: KeyUse.KEY_USE_TOKEN })],
    ])
      expect(withKeys(...keys)).toEqual({ kind: "refused", reason: "keyset_no_active_key" });
  });

  test("of a use, algorithm or state that is unknown or none are passed over", () => {
    const good = entry();
    const odd = [{ use: 0 }, { use: 9 }, { alg: 0 }, { alg: 9 }, { state: 0 }, { state: 9 }].map((change) =>
      entry(change),
    );
    expect(withKeys(good, ...odd).kind).toBe("trusted");
    for (const one of odd) expect(withKeys(one).kind).toBe("refused");
  });

  test("whose id is not their digest, or which are weak, are passed over", () => {
    const weak = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]);
    for (const bad of [
      entry({ keyId: newKey().keyId }),
      entry({ keyId: new Uint8Array() }),
      entry({ public: weak, keyId: sha256(weak) }),
    ])
      expect(withKeys(bad)).toMatchObject({ reason: "keyset_no_active_key" });
  });

  test("for tokens count unless revoked", () => {
    const states = [
      KeyState.KEY_STATE_ACTIVE,
      KeyState.KEY_STATE_NEXT,
      KeyState.KEY_STATE_RETIRING,
      KeyState.KEY_STATE_REVOKED,
    ];
    const tokens = states.map((state) => ({ state, key: importSigningKey(newSeed()) }));
    const keys = tokens.map(({ state, key }) => entry({ use: KeyUse.KEY_USE_TOKEN, state }, key));
    const { tokenKeys } = trusted(withKeys(entry(), ...keys));
    expect([...tokenKeys.keys()]).toEqual(tokens.slice(0, 3).map(({ key }) => key.kid));
  });

  test("a weak root is no root", () => {
    const weak = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]);
    const keyset = ControllerKeySet.encode({
      controllerId: new Uint8Array(16),
      version: toLong(1),
      rootKey: weak,
    }).finish();
    const forgery = Buffer.concat([Buffer.from([1]), Buffer.alloc(63)]);
    const signed = SignedKeySet.encode({ keyset, signature: forgery }).finish();
    expect(trustFirst(sha256(weak), [signed])).toMatchObject({ reason: "keyset_malformed" });
  });
});

describe("pins of TLS keys", () => {
  const pin = (letter: string) => `spki-sha256:${letter.repeat(43)}`;
  const listing = (version: number, ...tlsPins: string[]) =>
    make({ version, change: (keyset) => (keyset.tlsPins = tlsPins) });
  const after = (...chain: Uint8Array[]) => trusted(trustFirst(root.keyId, chain));

  test("that a newer keyset lists no more are withdrawn, until one lists them again", () => {
    const both = after(listing(1, pin("A"), pin("B")), listing(2, pin("B"), pin("C")));
    expect(both).toMatchObject({ tlsPins: [pin("B"), pin("C")], withdrawnPins: [pin("A")] });
    expect(trusted(advance(both, [listing(3, pin("A"))]))).toMatchObject({ withdrawnPins: [pin("B"), pin("C")] });
  });

  test("of no known form, and more than any controller lists, are passed over", () => {
    const many = Array.from({ length: 30 }, (_, n) => pin("A").slice(0, -1) + String.fromCharCode(65 + (n % 26)));
    expect(after(listing(1, "sha1:abc", pin("A"))).tlsPins).toEqual([pin("A")]);
    expect(after(listing(1, ...many)).tlsPins).toHaveLength(16);
  });

  test("that are withdrawn are remembered with the file, which is bounded", () => {
    let at = after(listing(1, pin("A")));
    for (let version = 2; version < 80; version++) {
      const one = `spki-sha256:${String(version).padStart(43, "0")}`;
      at = trusted(advance(at, [listing(version, one)]));
    }
    expect(at.withdrawnPins).toHaveLength(64);
    expect(at.withdrawnPins[0]).toBe(pin("A"));
    expect(withWithdrawn(after(listing(1, pin("A"))), [pin("A"), pin("B")]).withdrawnPins).toEqual([pin("B")]);
  });
});
