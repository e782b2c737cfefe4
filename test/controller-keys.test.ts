/** The controller's keys change under live sessions, and hosts follow them along what the pinned root has signed, never back. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { confirmWithinMs, createKeyChanges, type KeyChanges } from "../src/controller/key-changes.ts";
import { revokeKey, rotateKey, rotateRoot } from "../src/controller/key-rotation.ts";
import {
  type ControllerKeyring,
  createControllerKeys,
  loadControllerKeys,
  newestKeyset,
} from "../src/controller/keys.ts";
import { keysetsSince } from "../src/controller/keysets.ts";
import { advance, type TrustedKeyset, trustFirst } from "../src/envelope/keyset.ts";
import type { SigningKey } from "../src/envelope/public-key.ts";
import { loadControllerKeys as loadPinned, saveControllerKeys } from "../src/identity/controller-keys.ts";
import { writeFileAtomic } from "../src/platform/private-file.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { toLong, whole } from "../src/wire/whole.ts";
import { frameOf, sealed } from "./support/rogue.ts";
import { settled } from "./support/scripted-host.ts";
import { daemonStage } from "./support/stages.ts";
import { causeOf } from "./support/strict-daemon.ts";
import { newKey, type StrictKeys, signedKeyset } from "./support/strict-keys.ts";
import { type StrictPair, strictPair } from "./support/strict-pair.ts";

const wire = aegis.cluster.v1;
type Stage = ReturnType<typeof daemonStage>;
type Make = Partial<Parameters<typeof signedKeyset>[0]>;

/** The next keyset of a stage's controller. */
const following = ({ strict }: Stage, given: Make = {}) =>
  signedKeyset({
    ...{
      controllerId: strict.controllerId,
      version: 2,
      root: strict.root,
      command: newKey(),
      token: strict.keys.token,
    },
    ...given,
  });
const frameWith = (stage: Stage, signed: Uint8Array, made: { signer?: SigningKey } = {}) =>
  sealed(stage.rogue.frame("keysetFrame", signed, made));

/** What the daemon last said it trusts. */
function confirmedVersion({ rogue }: Stage): number | null {
  const last = rogue.events.map(frameOrNull).findLast((frame) => frame?.kind === 0x21);
  return last ? whole(wire.HeartbeatEvent.decode(last.body).keysetVersion) : null;
}
const frameOrNull = (event: Stage["rogue"]["events"][number]) => (event.sealed ? frameOf(event) : null);

describe("a KEYSET frame on a live session", () => {
  test("is confirmed at once, and from the next frame on its key signs and the former one does not", async () => {
    const stage = daemonStage();
    const session = await stage.begin();
    const command = newKey();
    stage.rogue.send(frameWith(stage, following(stage, { command })));
    await settled();
    expect(stage.daemon.keyset()).toMatchObject({ version: 2, commandKey: { kid: command.kid } });
    expect(confirmedVersion(stage)).toBe(2);
    stage.rogue.send(sealed(stage.rogue.frame("command", stage.invoke(), { signer: command })));
    await settled();
    expect(stage.daemon.tool.runs).toHaveLength(1);
    stage.rogue.send(sealed(stage.rogue.frame("command", stage.invoke())));
    expect(causeOf(await session.ended)).toMatch(/authentication/);
    expect(stage.daemon.tool.runs).toHaveLength(1);
  });

  test("what comes behind it waits until the keyset is on disk, and is then judged with its key", async () => {
    let store: () => void = () => {};
    const stage = daemonStage({ saveKeyset: () => new Promise((resolve) => (store = resolve)) });
    await stage.begin();
    const command = newKey();
    stage.rogue.send(frameWith(stage, following(stage, { command })));
    stage.rogue.send(sealed(stage.rogue.frame("command", stage.invoke(), { signer: command })));
    await settled();
    expect(stage.daemon.tool.runs).toHaveLength(0);
    expect(confirmedVersion(stage)).toBeNull();
    store();
    await settled();
    expect(stage.daemon.tool.runs).toHaveLength(1);
    expect(confirmedVersion(stage)).toBe(2);
  });

  test("that cannot be stored ends the session, unconfirmed, with the former keyset", async () => {
    const stage = daemonStage({ saveKeyset: () => Promise.reject(new Error("disk full")) });
    const session = await stage.begin();
    stage.rogue.send(frameWith(stage, following(stage)));
    expect(causeOf(await session.ended)).toBe("disk full");
    expect(stage.daemon.keyset().version).toBe(1);
  });

  test("of what comes behind it no more is held than a controller ever sends", async () => {
    let store: () => void = () => {};
    const stage = daemonStage({ saveKeyset: () => new Promise((resolve) => (store = resolve)) });
    const session = await stage.begin();
    stage.rogue.send(frameWith(stage, following(stage)));
    for (let n = 0; n < 70; n++) stage.rogue.send(sealed(stage.rogue.frame("ack", new Uint8Array())));
    store();
    expect(causeOf(await session.ended)).toBe("more than 64 messages came while none was looked at");
  });

  const refused: Array<[what: string, signed: (stage: Stage) => Uint8Array, reason: RegExp, loud?: string]> = [
    ["46 of a lower version", (stage) => following(stage, { version: 1 }), /keyset_rollback/, "keyset_rollback"],
    [
      "47 of the same version with other bytes",
      (stage) => following(stage, { version: 5, command: newKey() }),
      /keyset_equivocation/,
      "keyset_equivocation",
    ],
    ["48 that another root signed", (stage) => following(stage, { version: 6, root: newKey() }), /keyset_signature/],
    [
      "49 with another root and the old one's signature only",
      (stage) => {
        const { keyset, signature } = wire.SignedKeySet.decode(
          following(stage, { version: 6, root: newKey(), formerRoot: stage.strict.root }),
        );
        return wire.SignedKeySet.encode({ keyset, signature }).finish();
      },
      /keyset_root/,
    ],
    [
      "49 with another root and the new one's signature only",
      (stage) => following(stage, { version: 6, root: newKey() }),
      /keyset_signature/,
    ],
    ["that is none", () => Buffer.from("ff", "hex"), /keyset_malformed/],
    [
      "of another controller",
      (stage) => following(stage, { version: 6, controllerId: crypto.randomUUID() }),
      /keyset_controller/,
    ],
  ];
  for (const [what, signed, reason, loud] of refused)
    test(`${what}: the session ends, and what was trusted stays`, async () => {
      const stage = daemonStage();
      const session = await stage.begin();
      const command = newKey();
      stage.rogue.send(frameWith(stage, following(stage, { version: 5, command })));
      await settled();
      stage.rogue.send(frameWith(stage, signed(stage), { signer: command }));
      expect(causeOf(await session.ended)).toMatch(reason);
      expect(stage.daemon.keyset().version).toBe(5);
      expect(stage.daemon.log.find(loud ?? "keyset_rollback")?.level).toBe(loud ? "error" : undefined);
    });

  test("signed by the key that it brings, and not by the one of now: the session ends", async () => {
    const stage = daemonStage();
    const session = await stage.begin();
    const command = newKey();
    stage.rogue.send(frameWith(stage, following(stage, { command }), { signer: command }));
    expect(causeOf(await session.ended)).toMatch(/authentication/);
    expect(stage.daemon.keyset().version).toBe(1);
  });

  test("before ACCEPT it is no answer to a Hello", async () => {
    const stage = daemonStage();
    const session = await stage.begin(false);
    const accept = stage.rogue.accept();
    stage.rogue.send({ sealed: { ...sealed(accept).sealed, kind: 0x13 } });
    expect(causeOf(await session.ended)).toMatch(/accept_expected/);
  });

  test("47 in ACCEPT, the same version with other bytes: loud, and no connection", async () => {
    const stage = daemonStage();
    const session = await stage.begin(false);
    const other = following(stage, { version: 1 });
    const body = { keysetVersion: toLong(1), keysetChain: [wire.SignedKeySet.decode(other)] };
    stage.rogue.send(sealed(stage.rogue.accept({ body })));
    expect(causeOf(await session.ended)).toMatch(/keyset_equivocation/);
    expect(stage.daemon.log.find("keyset_equivocation")?.level).toBe("error");
  });
});

/** A controller whose keys lie in files, and one host in memory. */
interface Keyed {
  dataDir: string;
  pair: StrictPair;
  keys: ControllerKeyring;
  changes: KeyChanges;
  options: Parameters<typeof rotateKey>[1];
}

let dataDir: string;
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "aegis-keys-"));
});
afterEach(() => rmSync(dataDir, { recursive: true }));

async function keyed(offlineRoot?: string): Promise<Keyed> {
  const controllerId = crypto.randomUUID();
  const { root, signedKeyset: signed } = await createControllerKeys(dataDir, controllerId, 0, offlineRoot);
  const first = trustFirst(root.keyId, [signed]);
  if (first.kind === "refused") throw new Error(first.reason);
  const { keyset } = first;
  const ring = await loadControllerKeys(dataDir, keyset);
  const keys = Object.assign(ring, { callerKey: ring.caller(0) });
  const strict: StrictKeys = { controllerId, root, keyset, keys };
  const pair = await strictPair({ strict, keysetsSince: (version) => changes.since(version) });
  const { store, sessions, clock, time, log } = pair;
  await store.insertKeyset({ version: 1, signed, rootKey: root.raw, createdAt: 0 });
  const changes = createKeyChanges({ store, keys, sessions, clock, time, log });
  await writeFileAtomic(join(dataDir, "controller.yaml"), configText(controllerId));
  const options = { dataDir, store, clock, ...(offlineRoot === undefined ? {} : { offlineRoot }) };
  return { dataDir, pair, keys, changes, options };
}

const configText = (controllerId: string) =>
  `controller_id: ${controllerId}\npublic_endpoint: localhost:50056\ncreated_at: 2026-01-01T00:00:00Z\n`;

/** A call whose tool ends at once. */
async function works({ pair }: Keyed): Promise<void> {
  const before = pair.daemon.tool.runs.length;
  const call = pair.call({ nodeId: pair.identity.nodeId });
  for (let turn = 0; turn < 20 && pair.daemon.tool.runs.length === before; turn++) await settled();
  pair.daemon.tool.runs.at(-1)?.end();
  expect(await call.result).toMatchObject({ ok: true, receipt: "verified" });
}

describe("a planned change of the command key", () => {
  test("is published, confirmed by every connected host and then used, while a call goes on", async () => {
    const site = await keyed();
    const { pair, keys, changes } = site;
    await pair.connected();
    const live = pair.sessions.get(pair.identity.nodeId);
    const call = pair.call({ nodeId: pair.identity.nodeId });
    for (let turn = 0; turn < 20 && pair.daemon.tool.runs.length === 0; turn++) await settled();
    const former = keys.command.kid;
    let say: () => void = () => {};
    const honest = pair.relay.up;
    pair.relay.up = (event, forward) => {
      if (event.sealed?.kind === 0x21) say = () => forward(event);
      else honest(event, forward);
    };
    const change = await rotateKey("command", site.options);
    expect(change).toMatchObject({ version: 2, plannedVersion: 3 });
    await changes.look();
    // Published, and the old one still signs: the host has not said yet that it knows.
    expect(keys.keyset.version).toBe(2);
    expect(keys.command.kid).toBe(former);
    await settled();
    expect(pair.daemon.keyset().version).toBe(2);
    await changes.look();
    expect(keys.keyset.version).toBe(2);
    pair.relay.up = honest;
    say();
    await settled();
    await changes.look();
    expect([keys.keyset.version, keys.command.kid]).toEqual([3, change.key.kid]);
    await settled();
    expect(pair.daemon.keyset()).toMatchObject({ version: 3, commandKey: { kid: change.key.kid } });
    expect(keys.keyset.keys.map(({ use, state }) => `${use} ${state}`)).toEqual([
      "command retiring",
      "token active",
      "command active",
    ]);
    pair.daemon.tool.runs[0]?.end();
    expect(await call.result).toMatchObject({ ok: true, receipt: "verified" });
    expect(pair.sessions.get(pair.identity.nodeId)).toBe(live);
    await works(site);
    expect(await pair.store.plannedKeyset()).toBeNull();
    expect(await pair.store.nodesBehind(3)).toEqual([]);
  });

  test("waits for a host that does not confirm, and then has it say Hello again", async () => {
    const site = await keyed();
    const { pair, keys, changes } = site;
    const { ended } = await pair.connected();
    const honest = pair.relay.down;
    pair.relay.down = (command, forward) => {
      if (command.sealed?.kind !== 0x13) honest(command, forward);
    };
    await rotateKey("command", site.options);
    await changes.look();
    await pair.clock.advance(confirmWithinMs - 1_000);
    await changes.look();
    expect(keys.keyset.version).toBe(2);
    await pair.clock.advance(1_001);
    await changes.look();
    expect(keys.keyset.version).toBe(3);
    await ended;
    expect(pair.log.find("keyset_unconfirmed")).toMatchObject({ node_id: pair.identity.nodeId });
    pair.relay.down = honest;
    await pair.connected();
    expect(pair.daemon.keyset().version).toBe(3);
    await works(site);
  });

  test("a session that was begun with the former keyset, and confirmed after the change, gets it at once", async () => {
    const site = await keyed();
    const { pair, changes } = site;
    let confirm: () => void = () => {};
    const honest = pair.relay.up;
    pair.relay.up = (event, forward) => {
      if (event.sealed?.kind === 0x20) confirm = () => forward(event);
      else honest(event, forward);
    };
    pair.daemon.connect();
    for (let turn = 0; turn < 20; turn++) await settled();
    await revokeKey("command", site.options);
    await changes.look();
    pair.relay.up = honest;
    confirm();
    for (let turn = 0; turn < 20; turn++) await settled();
    expect(pair.daemon.keyset().version).toBe(2);
    await works(site);
  });

  test("a second change has to wait for the first", async () => {
    const site = await keyed();
    await rotateKey("command", site.options);
    for (const attempt of [() => rotateKey("token", site.options), () => rotateRoot(site.options)])
      await expect(attempt()).rejects.toMatchObject({ code: "conflict" });
  });

  test("that a revocation overtook is begun again with the key that the hosts know already", async () => {
    const site = await keyed();
    const first = await rotateKey("command", site.options);
    await revokeKey("token", site.options);
    expect(await site.pair.store.plannedKeyset()).toBeNull();
    const again = await rotateKey("command", site.options);
    expect(again.key.kid).toBe(first.key.kid);
    await site.changes.look();
    expect(site.keys.command.kid).toBe(first.key.kid);
  });

  test("a key that has been retiring for a year is published no more", async () => {
    const site = await keyed();
    const former = site.keys.command.kid;
    await rotateKey("command", site.options);
    await site.changes.look();
    await site.pair.clock.advance(366 * 86_400_000);
    await rotateKey("token", site.options);
    await site.changes.look();
    expect(site.keys.keyset.keys.map(({ key }) => key.kid)).not.toContain(former);
  });
});

describe("52 a command key that was revoked", () => {
  test("52 signs nothing from then on, on a session that lives", async () => {
    const stage = daemonStage();
    const session = await stage.begin();
    const stolen = stage.strict.keys.command;
    stage.rogue.send(frameWith(stage, following(stage, { version: 3 })));
    await settled();
    stage.rogue.send(sealed(stage.rogue.frame("command", stage.invoke(), { signer: stolen })));
    expect(causeOf(await session.ended)).toMatch(/authentication/);
    expect(stage.daemon.tool.runs).toHaveLength(0);
  });

  test("52 opens no session, and refuses no Hello in a way that would be believed", async () => {
    const stage = daemonStage();
    const first = await stage.begin();
    stage.rogue.send(frameWith(stage, following(stage)));
    await settled();
    first.stop();
    await first.ended;
    const second = await stage.begin(false);
    // The thief's keyset is the former one, or claims to be newer without the root.
    stage.rogue.send(sealed(stage.rogue.accept()));
    expect(causeOf(await second.ended)).toMatch(/keyset_rollback/);
  });

  test("52 is replaced in the same step, and calls go on with the new one", async () => {
    const site = await keyed();
    await site.pair.connected();
    const stolen = site.keys.command.kid;
    const change = await revokeKey("command", site.options);
    await site.changes.look();
    await settled();
    expect(site.keys.command.kid).toBe(change.key.kid);
    expect(site.keys.keyset.keys.find(({ key }) => key.kid === stolen)?.state).toBe("revoked");
    expect(site.pair.daemon.keyset().commandKey.kid).toBe(change.key.kid);
    await works(site);
  });

  test("a key is named by its use or by its fingerprint, and revoked once", async () => {
    const site = await keyed();
    const { fingerprint } = await import("../src/envelope/public-key.ts");
    const shown = fingerprint(site.keys.token);
    await revokeKey(shown.slice(0, 16), site.options);
    await expect(revokeKey(shown, site.options)).rejects.toMatchObject({ code: "conflict" });
    await expect(revokeKey("SHA256:", site.options)).rejects.toMatchObject({ code: "not_found" });
    await expect(revokeKey("nothing", site.options)).rejects.toMatchObject({ code: "not_found" });
  });
});

describe("50 a host that was away for three changes of root", () => {
  test("50 comes back with its next Hello, and finds its way from its own root again when it restarts", async () => {
    const site = await keyed();
    const { pair, changes, keys } = site;
    const pinned = keys.keyset.rootKey.kid;
    const session = await pair.connected();
    session.stop();
    await session.ended;
    for (let n = 0; n < 3; n++) await rotateRoot(site.options);
    await rotateKey("command", site.options);
    await changes.look();
    expect(keys.keyset.version).toBe(6);
    await pair.connected();
    await works(site);
    const trusted = pair.daemon.keyset();
    expect(trusted).toMatchObject({ version: 6, rootKey: { kid: keys.keyset.rootKey.kid } });

    const path = join(dataDir, "controller.keys");
    await saveControllerKeys(path, trusted);
    const read = await loadPinned(path, pinned);
    expect(read).toMatchObject({ version: 6, rootKey: { kid: keys.keyset.rootKey.kid } });
    // A host that enrolls now pins the root of now.
    expect((await loadPinned(path, keys.keyset.rootKey.kid)).version).toBe(6);
    await expect(loadPinned(path, newKey().kid)).rejects.toMatchObject({ code: "config_invalid" });
  });

  test("50 with one of the changes left out it does not follow", async () => {
    const site = await keyed();
    const known = site.keys.keyset;
    for (let n = 0; n < 3; n++) await rotateRoot(site.options);
    const newest = await newestKeyset(site.pair.store);
    const chain = await keysetsSince(site.pair.store, known.version, newest);
    expect(chain).toHaveLength(3);
    for (let left = 0; left < 2; left++)
      expect(
        advance(
          known,
          chain.filter((_, index) => index !== left),
        ),
      ).toMatchObject({ kind: "refused" });
    expect(advance(known, chain)).toMatchObject({ kind: "trusted" });
  });

  test("50 stored anchors that do not lead from the pinned root are refused", async () => {
    const site = await keyed();
    const known = site.keys.keyset;
    for (let n = 0; n < 2; n++) await rotateRoot(site.options);
    const { store } = site.pair;
    const moved = advance(known, await keysetsSince(store, 1, await newestKeyset(store)));
    if (moved.kind === "refused") throw new Error(moved.reason);
    const path = join(dataDir, "controller.keys");
    await saveControllerKeys(path, { ...moved.keyset, anchors: [known.signed, known.signed] });
    await expect(loadPinned(path, known.rootKey.kid)).rejects.toMatchObject({
      message: expect.stringContaining("does not verify"),
    });
  });

  test("the former root key is not kept, and signs nothing", async () => {
    const site = await keyed();
    const names = () => readdirSync(join(dataDir, "keys")).filter((name) => name.startsWith("root"));
    expect(names()).toEqual(["root.key"]);
    await rotateRoot(site.options);
    expect(names()).toHaveLength(1);
    expect(names()).not.toContain("root.key");
    await rotateKey("command", site.options);
  });
});

describe("a root key that is kept elsewhere", () => {
  test("changes keys only when it is brought, and its successor lies beside it", async () => {
    const away = mkdtempSync(join(tmpdir(), "aegis-root-"));
    try {
      const file = join(away, "root");
      const site = await keyed(file);
      const here = { ...site.options };
      delete here.offlineRoot;
      await expect(rotateKey("command", here)).rejects.toMatchObject({
        code: "precondition_failed",
        hint: expect.stringContaining("--offline-root"),
      });
      await rotateKey("command", site.options);
      await site.changes.look();
      const change = await rotateRoot(site.options);
      expect(change.rootPath).toStartWith(`${file}-`);
      await expect(rotateKey("command", site.options)).rejects.toMatchObject({ code: "precondition_failed" });
      await rotateKey("command", { ...site.options, offlineRoot: change.rootPath ?? "" });
      expect(readdirSync(join(dataDir, "keys")).filter((name) => name.startsWith("root"))).toEqual([]);
    } finally {
      rmSync(away, { recursive: true });
    }
  });
});

describe("51 a crash between keeping a keyset and confirming it", () => {
  for (const kept of [false, true])
    test(`51 of the host, with the new one ${kept ? "kept" : "not kept yet"}: its next process confirms it`, async () => {
      let disk: TrustedKeyset | null = null;
      const stage = daemonStage({
        saveKeyset: (newer) => {
          if (kept) disk = newer;
          // The process ends here.
          return new Promise(() => {});
        },
      });
      const session = await stage.begin();
      const command = newKey();
      const newer = following(stage, { command });
      stage.rogue.send(frameWith(stage, newer));
      await settled();
      expect(confirmedVersion(stage)).toBeNull();
      session.stop();
      await session.ended;

      const next = daemonStage({ strict: stage.strict, identity: stage.identity, keyset: disk ?? stage.strict.keyset });
      const again = await next.begin(false);
      const body = { keysetVersion: toLong(2), keysetChain: [wire.SignedKeySet.decode(newer)] };
      next.rogue.send(sealed(next.rogue.accept({ body, signer: command })));
      await settled();
      const confirm = next.rogue.events.map(frameOrNull).find((frame) => frame?.kind === 0x20);
      expect(whole(wire.SealConfirm.decode(confirm?.body ?? new Uint8Array()).keysetVersion)).toBe(2);
      expect(next.daemon.keyset().version).toBe(2);
      again.stop();
      await again.ended;
    });

  test("51 of the controller, between publishing and using: it goes on where it was", async () => {
    const site = await keyed();
    await rotateKey("command", site.options);
    // A new process: what it knows is in the database and in keys/.
    const { store, sessions, clock, time, log } = site.pair;
    const keys = await loadControllerKeys(dataDir, await newestKeyset(store));
    expect(keys.keyset.version).toBe(2);
    const changes = createKeyChanges({ store, keys, sessions, clock, time, log });
    await changes.look();
    expect(keys.keyset.version).toBe(3);
  });

  test("a keyset whose private keys are not here is not used, and said", async () => {
    const site = await keyed();
    await revokeKey("command", site.options);
    for (const name of readdirSync(join(dataDir, "keys")))
      if (name.startsWith("command-")) rmSync(join(dataDir, "keys", name));
    const before = site.keys.command.kid;
    await expect(site.changes.look()).rejects.toMatchObject({ code: "config_invalid" });
    expect(site.keys.command.kid).toBe(before);
  });
});
