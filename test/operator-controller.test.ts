/**
 * The stolen controller: somebody has its keys, its root, its database and the stream, and a host whose owner demands an
 * operator's signature. The daemon, its settings and its tools are the real ones; the other end says whatever it likes.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes, randomUUID } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CallRequest } from "../src/controller/dispatch-types.ts";
import { mintNodeToken } from "../src/controller/node-token.ts";
import type { FrameKind } from "../src/envelope/frame.ts";
import { trustFirst } from "../src/envelope/keyset.ts";
import { readOperatorChallenge, signOperatorProof } from "../src/envelope/operator.ts";
import { importSigningKey, newSeed, type SigningKey } from "../src/envelope/public-key.ts";
import { signRotateGrant } from "../src/envelope/rotation.ts";
import { statement } from "../src/envelope/statement.ts";
import { publicKeyText } from "../src/identity/operator-key.ts";
import { type Clock, systemClock } from "../src/platform/clock.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { jsonToStruct } from "../src/wire/json.ts";
import { toLong } from "../src/wire/whole.ts";
import { eventually } from "./support/aegis.ts";
import { type BareHost, bareHost, type Enrolling, enrolling } from "./support/enrolling.ts";
import { frameOf, type RogueController, rogueController, sealed } from "./support/rogue.ts";
import { invokeBody } from "./support/stages.ts";
import { type HostIdentity, newKey, type StrictKeys, signedKeyset } from "./support/strict-keys.ts";

setDefaultTimeout(120_000);
const wire = aegis.cluster.v1;

let controller: Enrolling;
/** Everything that was on the controller. */
let loot: StrictKeys;
let host: BareHost;
let identity: HostIdentity;
const operator = newKey();

beforeAll(async () => {
  controller = await enrolling();
});
afterAll(() => controller.remove());

beforeEach(async () => {
  host = bareHost();
  mkdirSync(join(host.home, "work"));
  const { nodeId, tenantId } = await host.enroll(await controller.issue(), { fullAccess: true });
  identity = { nodeId, tenantId, nodeKey: newKey(), nodeToken: "" };
  const key = (name: string): SigningKey =>
    importSigningKey(readFileSync(join(controller.dataDir, "keys", `${name}.key`)));
  const [root, command, token] = [key("root"), key("command"), key("token")];
  const stored = await controller.store.newestKeyset();
  const trusted = trustFirst(root.keyId, [stored?.signed ?? new Uint8Array()]);
  if (trusted.kind === "refused") throw new Error(trusted.reason);
  const callerKey = importSigningKey(newSeed());
  const { controllerId } = controller;
  const { keyset } = trusted;
  loot = { controllerId, root, keyset, keys: { keyset, command, token, caller: () => callerKey, callerKey } };
});
afterEach(() => host.remove());

/** Waits between attempts are short; everything else takes its time. */
const hasty: Clock = {
  ...systemClock,
  sleep: (ms, signal) => systemClock.sleep(ms > 0 && ms <= 1_000 ? 5 : ms, signal),
};

function settings(spec: object): void {
  const document = { apiVersion: "100monkeys.ai/v1", kind: "NodeConfig", spec };
  writeFileSync(join(host.home, ".aegis", "config.yaml"), JSON.stringify(document));
}
const trusted = () => [{ name: "ann", public_key: publicKeyText(operator) }];
const quickly = { cluster: { edge: { stream_reconnect_backoff_secs: [1] } } };

/** What the root allows: other command and token keys, for good. */
function changedKeys(version: number): { keys: StrictKeys; signed: Uint8Array } {
  const [command, token] = [newKey(), newKey()];
  const signed = signedKeyset({ ...loot, version, command, token });
  const moved = trustFirst(loot.root.keyId, [signed]);
  if (moved.kind === "refused") throw new Error(moved.reason);
  const { keyset } = moved;
  return { signed, keys: { ...loot, keyset, keys: { ...loot.keys, keyset, command, token } } };
}

type Answer = ReturnType<typeof wire.CommandResultEvent.decode>;

interface Attacker {
  rogue: RogueController;
  /** How often the host asked for a new token. */
  renewals(): number;
  /** The host's tools, as it told them last. */
  tools: string[];
  /** Sends a call and waits for the host's answer. */
  call(request: Partial<CallRequest>): Promise<Answer>;
  send(kind: FrameKind, body: Uint8Array): void;
  command(command: aegis.cluster.v1.EdgeCommand.$Properties): void;
  challenge(): Uint8Array;
  /** Ends the stream, unless told how to make the host end it, and lets the host come back. */
  nextSession(end?: () => void): Promise<void>;
  stop(): Promise<void>;
  /** Settles when the daemon has ended by itself. */
  ended: Promise<void>;
}

/** The daemon runs, and the attacker is what it has dialled. */
async function attack(keys: StrictKeys = loot): Promise<Attacker> {
  const time = () => Date.now();
  const rogue = rogueController(keys, identity, time);
  const over = Promise.withResolvers<void>();
  let challenge: Uint8Array = new Uint8Array();
  let streams = 0;
  // Looks whenever something comes: there are thousands of answers.
  let look = () => {};
  const { push } = rogue.events;
  rogue.events.push = (...events) => {
    const length = push.apply(rogue.events, events);
    look();
    return length;
  };
  // A renewal that the host asks for is answered as whoever has all keys can, for another identity than the host's own.
  let renewals = 0;
  rogue.link.rotate = async ({ currentEnvelope }) => {
    const { nodeId } = identity;
    const own = readFileSync(host.file("node.key"));
    const taken = [
      { nodeKey: newKey(), tenantId: tenant },
      { nodeKey: importSigningKey(own), tenantId: "another" },
    ][renewals++ % 2] as { nodeKey: SigningKey; tenantId: string };
    const { token } = mintNodeToken({
      ...{
        ...taken,
        nodeId,
        endpoint: "c:1",
        controllerId: keys.controllerId,
        nowMs: time(),
        tokenKey: keys.keys.token,
      },
    });
    const rotation = currentEnvelope?.payload ?? new Uint8Array();
    const grant = { nodeId, rotation, nodeToken: Buffer.from(token), overlapUntilMs: 0 };
    return wire.RotateEdgeKeyResponse.create({
      nodeSecurityToken: token,
      rotateGrant: signRotateGrant(keys.keys.command, grant),
    });
  };
  const open = rogue.link.open;
  rogue.link.open = (...given) => {
    streams++;
    return open(...given);
  };

  async function session(): Promise<void> {
    await eventually("a Hello", () => rogue.events[0]?.hello !== undefined && rogue.events.length === 1);
    rogue.send(sealed(rogue.accept({ body: { mustRefresh: true } })));
    await eventually("CONFIRM", () => rogue.events.length > 1);
    const confirm = wire.SealConfirm.decode(frameOf(rogue.events[1] as never).body).operatorChallenge;
    challenge = confirm ? wire.OperatorChallenge.encode(confirm).finish() : new Uint8Array();
  }

  const stateChanges: string[] = [];
  const daemon = await host.run(
    {
      ...{ link: rogue.link, clock: hasty },
      onState: (state) => {
        stateChanges.push(state);
        if (state === "stopped") over.resolve();
      },
    },
    session,
  );
  const attacker: Attacker = {
    rogue,
    renewals: () => renewals,
    get tools() {
      const { capabilities } = wire.SealHello.decode(rogue.events[0]?.hello?.sealHello ?? new Uint8Array());
      const told = rogue.events.slice(1).map((event) => frameOf(event));
      const newest = told.findLast(({ kind }) => kind === 0x24)?.body ?? capabilities;
      return wire.EdgeCapabilities.decode(newest).tools.map(({ name }) => name ?? "");
    },
    async call(request) {
      const commandId = request.commandId ?? randomUUID();
      const before = rogue.events.length;
      attacker.send("command", invokeBody(keys, identity, time, { ...everyRight, ...request, commandId }));
      const patience = new AbortController();
      const found = await new Promise<Answer>((resolve, reject) => {
        let seen = before;
        look = () => {
          for (; seen < rogue.events.length; seen++) {
            const frame = frameOf(rogue.events[seen] as never);
            if (frame.kind !== 0x23) continue;
            const answer = wire.CommandResultEvent.decode(wire.SealedResult.decode(frame.body).result);
            if (answer.commandId === commandId) resolve(answer);
          }
        };
        look();
        void systemClock
          .sleep(10_000, patience.signal)
          .then(() => reject(new Error(`no answer to ${JSON.stringify(request)}`)));
      });
      patience.abort();
      attacker.send("ack", wire.Ack.encode({ commandId: [commandId] }).finish());
      return found;
    },
    send: (kind, body) => rogue.send(sealed(rogue.frame(kind, body))),
    command: (command) => attacker.send("command", wire.EdgeCommand.encode(command).finish()),
    challenge: () => challenge,
    async nextSession(end = () => rogue.end({})) {
      const before = streams;
      end();
      await eventually("another stream", () => streams > before);
      await session();
    },
    stop: daemon.stop,
    ended: over.promise,
  };
  return attacker;
}

/** Whoever has the token key is whoever they like, with every scope. */
const everyRight: Partial<CallRequest> = {
  principal: {
    ...{ name: "root", tenantId: "acme", scopes: ["aegis.admin", "aegis.edge.fleet.manage"] },
    contexts: ["default", "operator"],
  },
};

/** In a folder of its own: beside the daemon's state no tool can make anything. */
const canary = () => join(host.home, "work", "canary");
/** Arguments by which each kind of tool would leave a trace. */
const touch = () => JSON.stringify({ command: "/usr/bin/touch", args: [canary()] });
const argumentsFor = (tool: string): string[] => [
  touch(),
  ...(tool.startsWith("fs.")
    ? [
        { path: canary(), content: "x" },
        { path: join(host.stateDir, "aegis-config.yaml"), content: "spec: {}" },
        { path: join(host.home, ".aegis/config.yaml"), content: "spec: {}" },
        { path: join(host.stateDir, "node.key") },
      ].map((args) => JSON.stringify(args))
    : ["{}"]),
  ...(tool.startsWith("mcp.") ? [JSON.stringify({ path: canary() })] : []),
];

const tenant = "acme";
const byCommand = () => ({ tool: "cmd.run", argsJson: touch() });
/** A proof for touching the canary, under the challenge the host has now. */
function proofFor(attacker: Attacker, key: SigningKey, { tool, argsJson } = byCommand()): Uint8Array {
  const { nodeId } = identity;
  const challenge = readOperatorChallenge(attacker.challenge(), { nodeId, tenant })?.challenge ?? new Uint8Array(32);
  const call = { nodeId, tenant, context: "operator", tool, argsJson: Buffer.from(argsJson), deadlineMs: 0 };
  return signOperatorProof(key, call, { challenge, statementId: randomBytes(16), issuedMs: Date.now(), note: "" });
}
const signedTouch = (operator: Uint8Array): Partial<CallRequest> => ({
  ...{ context: "operator", tool: "cmd.run", argsJson: touch(), operator },
});

const identityFiles = () =>
  Object.fromEntries(
    Object.entries(host.snapshot()).filter(([name]) => !/^\.aegis\/edge\/(?:run|controller\.keys|logs)/.test(name)),
  );

const refusals = [
  "operator_signature_required",
  "operator_signature_stale",
  "replayed",
  "envelope_invalid",
  "draining",
];
function nothingRan(answer: Answer): void {
  expect(refusals.concat("security_context_not_found")).toContain(answer.result?.errorKind ?? "none");
  expect(answer).toMatchObject({ started: false, result: { ok: false } });
  expect(existsSync(canary())).toBe(false);
}

/** Asks after a job that a signed call began: its output went through the controller anyway, and to end it is to refuse service. */
const isJobHandle = (tool: string) => tool.startsWith("job.");

/** Every tool in every context with every proof that can be had without the operator's key. */
async function everything(attacker: Attacker, recorded: readonly Uint8Array[]): Promise<number> {
  const { command, token, callerKey } = loot.keys;
  const real = wire.OperatorProof.decode(proofFor(attacker, newKey()));
  const proofs: Uint8Array[] = [
    new Uint8Array(),
    randomBytes(100),
    ...[newKey(), command, token, callerKey, loot.root].map((key) => proofFor(attacker, key)),
    wire.OperatorProof.encode({ ...real, keyId: operator.keyId }).finish(),
    wire.OperatorProof.encode({ ...real, keyId: operator.keyId, signature: new Uint8Array(64) }).finish(),
    wire.OperatorProof.encode({ ...real, keyId: operator.keyId, alg: 2 }).finish(),
    ...recorded,
  ];
  let calls = 0;
  const names = [...attacker.tools, "aegis.update", "aegis.keys.rotate", "job.wait", "job.kill", "mcp.files.write"];
  for (const context of ["default", "operator", "", "Operator"])
    for (const tool of names) {
      const isFew = tool === "cmd.run" || tool === "fs.write";
      for (const [at, proof] of (isFew ? proofs : [...proofs.slice(0, 3), ...recorded]).entries())
        for (const argsJson of at === 0 ? argumentsFor(tool) : [touch()]) {
          const answer = await attacker.call({ context, tool, argsJson, operator: proof });
          if (!isJobHandle(tool) || proof.length > 0) nothingRan(answer);
          expect(existsSync(canary())).toBe(false);
          calls++;
        }
    }
  return calls;
}

const pushes: Record<string, unknown>[] = [
  { trusted_operators: [] },
  { require_operator_signature: false },
  { spec: { require_operator_signature: false, trusted_operators: [] } },
  { security_contexts: [{ name: "operator", principals: [{ sub: "*" }], capabilities: [{ tool_pattern: "*" }] }] },
  { mcp_servers: [{ name: "x", command: "/bin/sh" }] },
  { cluster: { edge: { seal: "compat" } } },
  { log_level: "error", custom_labels: {}, heartbeat_interval_secs: 3_600, max_concurrent_invocations: 1 },
];

test("32 a stolen controller, with every key and every row, makes nothing run", async () => {
  const server = { name: "notes", command: process.execPath, args: [join(import.meta.dir, "support/mcp-server.js")] };
  settings({
    ...{ ...quickly, mcp_servers: [server] },
    ...{ require_operator_signature: true, trusted_operators: trusted() },
  });
  const attacker = await attack();
  const before = identityFiles();
  await eventually("the MCP server's tools", () => attacker.tools.includes("mcp.notes.touch"));

  // First it only carries what the operator signed: that runs, so what follows could be seen.
  const used = proofFor(attacker, operator);
  const answer = await attacker.call(signedTouch(used));
  expect(answer).toMatchObject({ started: true, result: { ok: true } });
  expect(existsSync(canary())).toBe(true);
  rmSync(canary());
  // And one that the operator signed and that it kept back: for later, for other calls, for other sessions.
  const kept = proofFor(attacker, operator);
  const recorded = [used, kept];

  const sent = await everything(attacker, [used]);
  expect(sent).toBeGreaterThan(400);
  // The statement kept back is good for its own call and for no other.
  for (const tool of attacker.tools)
    for (const argsJson of ["{}", touch().replace("canary", "canary2")])
      nothingRan(await attacker.call({ context: "operator", tool, argsJson, operator: kept }));
  nothingRan(await attacker.call({ ...signedTouch(kept), context: "default" }));
  nothingRan(await attacker.call({ ...signedTouch(kept), deadlineMs: 1_000 }));

  for (const push of pushes) {
    attacker.command({ pushConfig: { mergedConfigDelta: jsonToStruct(push) } });
    nothingRan(await attacker.call(signedTouch(new Uint8Array())));
  }

  // A new session: older challenges are dead.
  await attacker.nextSession();
  for (const operator of recorded) nothingRan(await attacker.call(signedTouch(operator)));

  await everything(attacker, recorded);

  // Drained, moved and shut down: it comes back as it was, or stays away.
  attacker.command({ drain: { reason: wire.DrainReason.DRAIN_REASON_MAINTENANCE, finishWithinMs: toLong(1) } });
  nothingRan(await attacker.call(signedTouch(kept)));
  await attacker.nextSession(() => attacker.command({ drain: { reason: wire.DrainReason.DRAIN_REASON_REBALANCE } }));
  for (const operator of recorded) nothingRan(await attacker.call(signedTouch(operator)));
  attacker.command({ shutdown: { reason: wire.DrainReason.DRAIN_REASON_UPGRADE, detail: "\u001b[2J" } });
  await attacker.ended;
  await attacker.stop();

  // The daemon is started again, with nothing in memory; and this time the controller has changed its keys, as its root allows.
  const second = changedKeys(2);
  const again = await attack(second.keys);
  for (const operator of recorded) {
    const stale = await again.call(signedTouch(operator));
    nothingRan(stale);
    expect(stale.statementVoid).toBe(false);
  }
  await everything(again, recorded);

  // Keys may change in mid-session too; whether the host takes them there or at its next Hello, they are no operator's.
  const third = changedKeys(3);
  const { nodeId } = identity;
  const frame = again.rogue.frame("command", third.signed);
  const header = { nodeId, sessionId: again.rogue.secrets.sessionId, seq: frame.seq, timeMs: frame.timeMs };
  const auth = second.keys.keys.command.sign(statement("keysetFrame", { ...header, body: third.signed }));
  again.rogue.send(sealed({ ...frame, kind: 0x13, auth }));
  await again.stop();
  const last = await attack(third.keys);
  for (const operator of recorded) nothingRan(await last.call(signedTouch(operator)));

  expect(identityFiles()).toEqual(before);
  expect(attacker.renewals()).toBeGreaterThanOrEqual(2);
  // The same host, the same minute, and the operator's own signature: so it was that which was missing.
  expect(await last.call(signedTouch(proofFor(last, operator)))).toMatchObject({
    started: true,
    result: { ok: true },
  });
  expect(existsSync(canary())).toBe(true);
  rmSync(canary());
  const byServer = { tool: "mcp.notes.touch", argsJson: JSON.stringify({ path: canary() }) };
  const said = await last.call({ context: "operator", ...byServer, operator: proofFor(last, operator, byServer) });
  expect(said).toMatchObject({ started: true, result: { ok: true } });
  expect(existsSync(canary())).toBe(true);
  await last.stop();
});

test("32 where only the context that can do something is signed, what is left can neither execute, write nor reach the host's keys", async () => {
  const signedOperator = { name: "operator", principals: [{ sub: "*" }], require_operator_signature: true };
  const file = host.file("aegis-config.yaml");
  const { parseYAML, stringifyYAML } = await import("confbox/yaml");
  const document = parseYAML<{ spec: { security_contexts: { name: string }[] } }>(readFileSync(file, "utf8"));
  for (const context of document.spec.security_contexts)
    if (context.name === "operator") Object.assign(context, signedOperator);
  writeFileSync(file, stringifyYAML(document));
  settings({ ...quickly, trusted_operators: trusted() });
  const attacker = await attack();
  const before = identityFiles();
  const looking = ["host.info", "service.status"];
  for (const tool of attacker.tools.filter((name) => !isJobHandle(name)))
    for (const argsJson of [...argumentsFor(tool), ...argumentsFor("fs.read")]) {
      const { started } = await attacker.call({ context: "default", tool, argsJson });
      expect(`${tool} ${started && !looking.includes(tool)}`).toBe(`${tool} false`);
      nothingRan(await attacker.call({ context: "operator", tool, argsJson }));
    }
  const look = await attacker.call({ context: "default", tool: "cmd.run", argsJson: '{"command":"uname"}' });
  expect(look).toMatchObject({ started: true, result: { ok: true } });
  expect([existsSync(canary()), identityFiles()]).toEqual([false, before]);
  expect(JSON.parse(host.text("run/status.json"))).toMatchObject({ operatorOnly: { holds: true } });
  await attacker.stop();
});

test("42 a context without signatures that allows everything does not lead to the settings that demand them", async () => {
  settings({ ...quickly, trusted_operators: trusted() });
  const work = mkdtempSync(join(tmpdir(), "aegis-work-"));
  const links = { state: host.stateDir, aegis: join(host.home, ".aegis"), key: host.file("node.key"), root: "/" };
  const mine = join(work, "mine");
  /** As it was: links lead there, and a file of one's own lies beside them. */
  const prepare = () => {
    rmSync(work, { recursive: true, force: true });
    mkdirSync(work);
    for (const [name, to] of Object.entries(links)) symlinkSync(to, join(work, name));
    writeFileSync(mine, "spec: {}");
  };
  const attacker = await attack();
  const before = identityFiles();
  const call = (tool: string, args: object) =>
    attacker.call({ context: "operator", tool, argsJson: JSON.stringify(args) });

  const targets = [
    ...["aegis-config.yaml", "node.key", "controller.keys", "secrets/x", ""].map((name) => join(host.stateDir, name)),
    ...["config.yaml", "edge", "", "operator.key"].map((name) => join(host.home, ".aegis", name)),
    ...["state/aegis-config.yaml", "aegis/config.yaml", "key", "state", `root${host.stateDir}/node.key`].map((name) =>
      join(work, name),
    ),
    join(host.home, "work/../.aegis/config.yaml"),
    `${host.home}/.aegis/./config.yaml`,
    `${host.home}//.aegis/config.yaml`,
  ].map((path) => path.replace(/(.)\/$/, "$1"));
  for (const path of targets) {
    const edit = { target_content: "spec", replacement_content: "x" };
    const attempts: [tool: string, args: object][] = [
      ["fs.write", { path, content: "spec: {}" }],
      ["fs.write", { path, content: "x", offset: 0 }],
      ["fs.edit", { path, ...edit }],
      ["fs.multi_edit", { path, edits: [edit] }],
      ["fs.delete", { path, recursive: true }],
      ["fs.create_dir", { path: join(path, "x") }],
      ["fs.move", { path: mine, destination: path, overwrite: true }],
      ["fs.move", { path, destination: join(work, "taken") }],
      ["fs.read", { path }],
      ["fs.grep", { path, pattern: "." }],
    ];
    for (const [tool, args] of attempts) {
      prepare();
      const answer = await call(tool, args);
      // A link is the work folder's own and may go; what it leads to may not.
      const isLink = path.startsWith(work) && /delete|move/.test(tool);
      if (!isLink) expect(`${tool} ${path}: ${answer.result?.ok}`).toBe(`${tool} ${path}: false`);
    }
  }
  const { identity: kept } = JSON.parse(host.text("run/status.json")) as { identity: { protected: boolean } };
  const file = host.file("aegis-config.yaml");
  for (const args of [
    ["-c", `echo x >> ${file}`],
    ["-c", `cat ${host.file("node.key")}`],
    ["-c", `rm -rf ${host.stateDir}`],
  ])
    if (kept.protected)
      expect(await call("cmd.run", { command: "/bin/sh", args })).toMatchObject({ result: { ok: false } });
  const after = identityFiles();
  for (const name of Object.keys(before).filter((name) => name.startsWith(".aegis")))
    expect(`${name} ${after[name]}`).toBe(`${name} ${before[name]}`);
  // The context is as free as it says, everywhere else.
  expect(await call("fs.write", { path: canary(), content: "x" })).toMatchObject({
    started: true,
    result: { ok: true },
  });
  await attacker.stop();
  rmSync(work, { recursive: true });
});
