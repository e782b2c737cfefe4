/**
 * The operator's desk: for whom it signs, what it shows before, when it signs again, and what it believes. The host is a
 * real one with a real session; the controller in between is as false as it likes.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CommandResult, FleetEvent } from "../src/api/events.ts";
import type { HostDetail, InvokeRequest, Preview } from "../src/api/types.ts";
import { maxAgain, type SignedRun, signedRun } from "../src/cli/signed-run.ts";
import { prepareSigning } from "../src/cli/signing.ts";
import type { Terminal } from "../src/cli/terminal.ts";
import { visibleJson, visibleName } from "../src/cli/visible.ts";
import { commandResult } from "../src/controller/call-result.ts";
import type { ResultEvent } from "../src/controller/dispatch-types.ts";
import { readOperatorProof, signOperatorChallenge, verifyOperatorProof } from "../src/envelope/operator.ts";
import { fingerprint, type SigningKey } from "../src/envelope/public-key.ts";
import { signReceipt } from "../src/envelope/receipt.ts";
import { signRotation } from "../src/envelope/rotation.ts";
import { AegisError } from "../src/errors.ts";
import { addKnownNodes, knownNodesPath, loadKnownNodes } from "../src/identity/known-nodes.ts";
import { createOperatorKey, readOperatorKey } from "../src/identity/operator-key.ts";
import { operatorKeyPath } from "../src/identity/operator-key-path.ts";
import type { ToolResult } from "../src/tools/tool.ts";
import { aegis } from "../src/wire/gen/messages.js";
import { failure } from "./support/enrolling.ts";
import { type Asked, ann, type SignedPair, signedPair, trusting } from "./support/operator.ts";
import { okResult, settled } from "./support/scripted-host.ts";
import { strictDaemon } from "./support/strict-daemon.ts";
import { newKey } from "./support/strict-keys.ts";

const wire = aegis.cluster.v1;
type Wanted = Extract<FleetEvent, { event: "signature_needed" }>["data"];

const call = { tenant: "acme", context: "signed", tool: "test.work", argsJson: Buffer.from('{"a":1}'), deadlineMs: 0 };

/** A run on the pair's host, signed under the challenge it has now. */
function runOn(pair: SignedPair): SignedRun {
  const { nodeId, nodeKey } = pair.identity;
  const hosts = [{ nodeId, key: nodeKey, challenge: pair.challenge().challenge }];
  return signedRun({ operator: ann, call, hosts, now: () => 1 });
}
const bytesOf = (proof: string | undefined): Uint8Array => Buffer.from(proof ?? "", "base64url");
const carry = (pair: SignedPair, proof: string | undefined): Promise<Asked> =>
  pair.ask(bytesOf(proof), { argsJson: '{"a":1}' });
/** As the controller tells it. */
function wanted(pair: SignedPair, { result }: Pick<Asked, "result">): Wanted {
  const { receipt_proof: receipt } = commandResult({ nodeId: pair.identity.nodeId, name: "web-1" }, "", result);
  if (!receipt) throw new Error("no receipt");
  const node_id = pair.identity.nodeId;
  return { node_id, reason: "operator_signature_stale", receipt, operator_challenge: "" };
}
const declined = (run: SignedRun, event: Wanted) => {
  const answer = run.again(event);
  expect(answer.kind).toBe("declined");
  return answer.kind === "declined" ? answer.why : "";
};

test("a host that has changed its challenge gets a new statement without a question, and the call runs", async () => {
  const pair = await signedPair();
  const run = runOn(pair);
  await pair.connected();
  const stale = await carry(pair, run.proofs[pair.identity.nodeId]);
  expect([stale.ran, stale.errorKind]).toEqual([0, "operator_signature_stale"]);
  const again = run.again(wanted(pair, stale));
  if (again.kind === "declined") throw new Error(again.why);
  expect((await carry(pair, again.proof)).ran).toBe(1);
});

describe("40 an answer that is not the host's word that its challenge changed", () => {
  async function staleRun() {
    const pair = await signedPair();
    const run = runOn(pair);
    await pair.connected();
    return { pair, run, stale: await carry(pair, run.proofs[pair.identity.nodeId]) };
  }

  test("40 signed by the controller, or by anybody but the host", async () => {
    const { pair, run, stale } = await staleRun();
    const { commandBody, result } = stale.result.receiptProof as NonNullable<ResultEvent["receiptProof"]>;
    const { nodeId } = pair.identity;
    const { commandId } = stale.proven;
    for (const key of [pair.strict.keys.command, pair.strict.root, newKey(), ann]) {
      const signature = signReceipt(key, { nodeId, commandId, commandBody, result });
      const receiptProof = { commandBody, result, signature, keyId: key.keyId };
      expect(declined(run, wanted(pair, { result: { ...stale.result, receiptProof } }))).toMatch(/not by the key/);
    }
    // What was declined is not held against the host.
    expect(run.again(wanted(pair, stale)).kind).toBe("signed");
  });

  test("40 a real receipt of a call that ran, or was refused otherwise, dressed as stale", async () => {
    const pair = await signedPair();
    const run = runOn(pair);
    const done = await carry(pair, run.proofs[pair.identity.nodeId]);
    expect(done.ran).toBe(1);
    expect(declined(run, wanted(pair, done))).toMatch(/does not say that its challenge had changed/);
    // Sent again it is refused, and that too is no reason to sign.
    const replayed = await carry(pair, run.proofs[pair.identity.nodeId]);
    expect(replayed.errorKind).toBe("replayed");
    expect(declined(run, wanted(pair, replayed))).toMatch(/does not say/);
    // Not even after a new session, when its challenge is dead: a controller that hides the first result gets no second run.
    await pair.connected();
    const later = await carry(pair, run.proofs[pair.identity.nodeId]);
    expect(declined(run, wanted(pair, later))).toMatch(/does not say/);
    expect(pair.daemon.tool.runs).toHaveLength(1);
  });

  test("40 its result rewritten to say stale", async () => {
    const pair = await signedPair();
    const run = runOn(pair);
    const { result } = await carry(pair, run.proofs[pair.identity.nodeId]);
    const proof = result.receiptProof as NonNullable<ResultEvent["receiptProof"]>;
    const said = wire.CommandResultEvent.decode(proof.result);
    const challenge = wire.OperatorChallenge.decode(
      pair.sessions.get(pair.identity.nodeId)?.operatorChallenge as Uint8Array,
    );
    const rewritten = wire.CommandResultEvent.encode({
      ...{ ...said, started: false, statementVoid: true, challenge },
      result: { ok: false, errorKind: "operator_signature_stale" },
    }).finish();
    const told = wanted(pair, { result: { ...result, receiptProof: { ...proof, result: rewritten } } });
    expect(declined(run, told)).toMatch(/not by the key/);
  });

  test("40 of another host, and for a host that nothing was signed for", async () => {
    const { pair, run, stale } = await staleRun();
    const other = await staleRun();
    expect(declined(run, { ...wanted(other.pair, other.stale), node_id: pair.identity.nodeId })).toMatch(
      /not by the key/,
    );
    expect(declined(run, { ...wanted(pair, stale), node_id: other.pair.identity.nodeId })).toMatch(
      /nothing was signed/,
    );
  });

  test("40 of a call with other arguments under a statement of this run", async () => {
    const { pair, run } = await staleRun();
    const twisted = await pair.ask(bytesOf(run.proofs[pair.identity.nodeId]), { argsJson: '{"a":2}' });
    expect(twisted.errorKind).toBe("operator_signature_required");
    expect(declined(run, wanted(pair, twisted))).toMatch(/something else than what was signed/);
  });

  test("40 garbled", async () => {
    const { pair, run, stale } = await staleRun();
    const told = wanted(pair, stale);
    for (const key of ["command_body", "result", "signature"] as const)
      for (const text of ["", "AA", told.receipt[key].slice(4)])
        expect(declined(run, { ...told, receipt: { ...told.receipt, [key]: text } })).toMatch(/not by the key/);
  });
});

describe("40b an older receipt, real and stale, of the same host", () => {
  test("40b of an earlier run", async () => {
    const pair = await signedPair();
    const earlier = runOn(pair);
    await pair.connected();
    const old = await carry(pair, earlier.proofs[pair.identity.nodeId]);
    expect(old.errorKind).toBe("operator_signature_stale");
    const run = runOn(pair);
    expect(declined(run, wanted(pair, old))).toMatch(/something else than what was signed last/);
    expect((await carry(pair, run.proofs[pair.identity.nodeId])).ran).toBe(1);
    expect(declined(run, wanted(pair, old))).toMatch(/something else/);
  });

  test("40b of this run, once it was answered: one receipt is worth one statement", async () => {
    const pair = await signedPair();
    const run = runOn(pair);
    await pair.connected();
    const old = await carry(pair, run.proofs[pair.identity.nodeId]);
    const again = run.again(wanted(pair, old));
    expect(again.kind).toBe("signed");
    expect(declined(run, wanted(pair, old))).toMatch(/something else/);
    expect((await carry(pair, again.kind === "signed" ? again.proof : "")).ran).toBe(1);
    expect(declined(run, wanted(pair, old))).toMatch(/something else/);
    expect(pair.daemon.tool.runs).toHaveLength(1);
  });
});

test("a host that was restarted does not know whether the call ran, so nobody signs it a second time unasked", async () => {
  const pair = await signedPair();
  const run = runOn(pair);
  const proof = run.proofs[pair.identity.nodeId];
  // It runs, and its result is lost on the way.
  expect((await carry(pair, proof)).ran).toBe(1);
  pair.link.close();
  const { link, host: clock, strict, identity } = pair;
  const daemon = strictDaemon({ link, clock, strict, identity, trusted: trusting() });
  daemon.connect();
  await settled();
  await settled();
  const stale = await pair.ask(bytesOf(proof), { argsJson: '{"a":1}' }, { daemon, identity });
  expect([stale.ran, stale.errorKind]).toEqual([0, "operator_signature_stale"]);
  expect(declined(run, wanted(pair, stale))).toMatch(/restarted, so whether the call ran is not known/);
});

test("after three new statements there is no fourth", async () => {
  const pair = await signedPair();
  const run = runOn(pair);
  let proof = run.proofs[pair.identity.nodeId];
  for (let again = 0; again < maxAgain; again++) {
    await pair.connected();
    const answer = run.again(wanted(pair, await carry(pair, proof)));
    if (answer.kind === "declined") throw new Error(answer.why);
    proof = answer.proof;
  }
  await pair.connected();
  expect(declined(run, wanted(pair, await carry(pair, proof)))).toMatch(/asked 3 times before/);
});

describe("what is told of a signed call is what the host signed, or it is doubted", () => {
  const stdout = { head: Buffer.from("hello\n"), tail: new Uint8Array(), bytes: 6 };

  /** The controller's account of a call that printed hello. */
  async function told(change: Partial<ToolResult> = {}) {
    const pair = await signedPair();
    const run = runOn(pair);
    const { nodeId } = pair.identity;
    const going = pair.call({ nodeId, context: "signed", argsJson: '{"a":1}', operator: bytesOf(run.proofs[nodeId]) });
    await settled();
    pair.daemon.tool.runs[0]?.end({ ...okResult, stdout, ...change });
    const result: CommandResult = commandResult({ nodeId, name: "web-1" }, going.commandId, await going.result);
    const progress = (text: string) =>
      run.shown({
        node_id: nodeId,
        command_id: going.commandId,
        stream: "stdout",
        seq: 0,
        offset: 0,
        data: text,
        skipped_bytes: 0,
      });
    return { pair, run, result, progress };
  }

  test("nothing is wrong with the truth, whole or cut, text or bytes, good or bad", async () => {
    const cut = { head: Buffer.from("h\u00e4"), tail: Uint8Array.of(0xa4, 0x0a), bytes: 9_000 };
    const changes: Partial<ToolResult>[] = [
      {},
      { stdout: cut },
      { stdout: { ...stdout, head: Uint8Array.of(255, 254), bytes: 2 } },
      { ok: false, exitCode: 3, errorKind: "nonzero_exit", errorMessage: "exit 3", structured: { a: [1, null, "x"] } },
      { ok: false, signal: "SIGKILL", errorKind: "signal" },
    ];
    for (const change of changes) {
      const { run, result } = await told(change);
      expect(run.judge(result)).toBeNull();
    }
    const { run, result, progress } = await told();
    progress("hel");
    progress("lo\n");
    expect(run.judge(result)).toBeNull();
  });

  const lies: [what: string, change: (result: CommandResult) => Partial<CommandResult>, why: RegExp][] = [
    ["another output", ({ stdout }) => ({ stdout: { ...stdout, head: "bye\n" } }), /otherwise.*stdout/],
    ["an output that was longer", ({ stdout }) => ({ stdout: { ...stdout, bytes: 7, omitted: 1 } }), /stdout/],
    ["words on stderr", ({ stderr }) => ({ stderr: { ...stderr, head: "x", bytes: 1 } }), /stderr/],
    ["a failure", () => ({ ok: false, outcome: "err", error_kind: "nonzero_exit" }), /otherwise.*ok/],
    ["another status", () => ({ exit_code: 1 }), /exit_code/],
    ["another outcome beside the same ok", () => ({ outcome: "err" }), /outcome/],
    ["a reason that there was not", () => ({ error_message: "x" }), /error_message/],
    ["structured content", () => ({ structured: { a: 1 } }), /structured/],
    ["another command's id", () => ({ command_id: "x" }), /command_id/],
    ["success without a receipt", () => ({ receipt_proof: null }), /shows no receipt/],
  ];
  for (const [what, change, why] of lies)
    test(`${what} is noticed`, async () => {
      const { run, result } = await told();
      expect(run.judge({ ...result, ...change(result) })).toMatch(why);
    });

  test("a failure told as success is noticed", async () => {
    const { run, result } = await told({ ok: false, exitCode: 1, errorKind: "nonzero_exit" });
    expect(run.judge({ ...result, ok: true, outcome: "ok", exit_code: 0, error_kind: null })).toMatch(/otherwise/);
  });

  test("an older receipt, another host's, and one by another key are noticed", async () => {
    const { pair, run, result } = await told();
    const earlier = await told();
    expect(run.judge({ ...earlier.result, node_id: pair.identity.nodeId })).toMatch(/not by the key/);
    const second = runOn(pair);
    expect(second.judge(result)).toMatch(/about another call/);
    const receipt_proof = result.receipt_proof && { ...result.receipt_proof, signature: "AAAA" };
    expect(run.judge({ ...result, receipt_proof })).toMatch(/not by the key/);
  });

  test("output that was shown and that the host never signed is noticed", async () => {
    const { run, result, progress } = await told();
    progress("hullo\n");
    expect(run.judge(result)).toMatch(/the stdout shown above is not what the host signed/);
  });

  test("more output than the host signed is noticed", async () => {
    const { run, result, progress } = await told();
    progress("hello\nand more\n");
    expect(run.judge(result)).toMatch(/shown above/);
  });

  test("hosts that nothing was signed for are not judged", async () => {
    const { run, result } = await told();
    expect(run.judge({ ...result, node_id: "other", receipt_proof: null })).toBeNull();
  });
});

// -------------------------------------------------------------------------------------------------- before anything is signed

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "aegis-desk-"));
});
afterEach(() => rmSync(home, { recursive: true, force: true }));
const place = () => ({ env: {}, home });

interface Desk {
  /** What the controller tells of a host's key. */
  keyChanges: HostDetail["key_changes"];
  notes: string[];
  questions: string[];
  /** `answers` are given in order; without them nobody is there. */
  prepare(
    preview: Partial<Preview> | AegisError,
    request?: Partial<InvokeRequest>,
    options?: { answers?: boolean[]; hidden?: string[]; yes?: boolean; tenant?: string },
  ): ReturnType<typeof prepareSigning>;
}

function desk(): Desk {
  const self: Desk = {
    keyChanges: [],
    notes: [],
    questions: [],
    prepare(preview, request = {}, { answers, hidden, yes = false, tenant = "acme" } = {}) {
      const terminal = {
        interactive: answers !== undefined,
        note: (text: string) => self.notes.push(text),
        warn: (text: string) => self.notes.push(text),
        async confirm(question: string) {
          self.questions.push(question);
          return answers?.shift() ?? false;
        },
        hidden: async () => hidden?.shift() ?? null,
      } as unknown as Terminal;
      const client = {
        async preview() {
          if (preview instanceof AegisError) throw preview;
          return { resolved: [], skipped: [], ...preview };
        },
        whoami: async () => ({ principal: "ann", tenant_id: tenant, scopes: [], contexts: [], expires_at: null }),
        host: async () => ({ key_changes: self.keyChanges }) as unknown as HostDetail,
      };
      const whole: InvokeRequest = {
        target: "All",
        tool: "cmd.run",
        args: { command: "id" },
        context: "ops",
        ...request,
      };
      return prepareSigning(client, whole, { ...place(), terminal, stop: new AbortController().signal }, yes);
    },
  };
  return self;
}

interface FakeHost {
  nodeId: string;
  key: ReturnType<typeof newKey>;
  name: string;
}
const fakeHost = (name: string): FakeHost => ({ nodeId: crypto.randomUUID(), key: newKey(), name });

/** As the controller previews a host; `name` is what it calls it. */
function previewed(
  host: FakeHost,
  { name = host.name, tenant = "acme", contexts = ["ops"], nodeId = host.nodeId } = {},
) {
  const challenge = signOperatorChallenge(host.key, {
    ...{ nodeId: host.nodeId, tenant, challenge: Buffer.alloc(32, 7), hostName: host.name, contexts },
  });
  return {
    node_id: nodeId,
    name,
    status: "connected" as const,
    operator_challenge: Buffer.from(challenge).toString("base64url"),
  };
}
/** As the API shows it. */
function changeOfKey(nodeId: string, oldKey: SigningKey, to: SigningKey): HostDetail["key_changes"][number] {
  const signed = signRotation({ nodeId, oldKey, newKey: to, nonce: crypto.getRandomValues(new Uint8Array(32)) });
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64url");
  return {
    ...{ request: text(signed.bytes), old_signature: text(signed.oldSignature) },
    new_signature: text(signed.newSignature),
  };
}
const know = (host: FakeHost) => addKnownNodes(place(), [{ ...host, tenant: "acme" }]);

describe("before anything is signed", () => {
  test("without a key nobody is even asked for a preview; the hosts refuse by themselves", async () => {
    expect(await desk().prepare({ resolved: [previewed(fakeHost("web-1"))] })).toBeNull();
  });

  test("hosts that want no signature for this context get none, and nothing is asked", async () => {
    await createOperatorKey(place());
    const it = desk();
    const free = previewed(fakeHost("web-1"), { contexts: ["other"] });
    expect(await it.prepare({ resolved: [free, { ...free, operator_challenge: null }] }, {}, { yes: true })).toBeNull();
    expect([it.notes, it.questions]).toEqual([[], []]);
  });

  test("a token that may not look at hosts still runs what needs no signature", async () => {
    await createOperatorKey(place());
    const it = desk();
    expect(await it.prepare(new AegisError("forbidden", "no"))).toBeNull();
    expect(it.notes.join()).toContain("aegis.edge.fleet.read");
    expect(await failure(desk().prepare(new AegisError("not_found", "no such host")))).toMatchObject({
      code: "not_found",
    });
  });

  test("a host is met once: its fingerprint is shown, and kept after a yes", async () => {
    const operator = await createOperatorKey(place());
    const [web, free] = [fakeHost("web-1"), fakeHost("free-1")];
    const resolved = [previewed(web), previewed(free, { contexts: [] })];
    const first = desk();
    const signing = await first.prepare({ resolved }, {}, { answers: [true, true] });
    expect(first.questions).toEqual(["are these their keys?", "sign and run it on 1 host?"]);
    expect(first.notes.join("\n")).toContain(`web-1  ${web.nodeId}  ${fingerprint(web.key)}`);
    expect(first.notes.join("\n")).toContain("1 host more of the target want no signature");
    expect((await loadKnownNodes(place())).get(web.nodeId)).toMatchObject({ name: "web-1", tenant: "acme" });

    // The request carries the exact text that was signed, and a proof for the one host that wants it.
    const { args, args_json, operator_proofs } = signing?.request ?? {};
    expect([args, args_json, Object.keys(operator_proofs ?? {})]).toEqual([
      undefined,
      '{"command":"id"}',
      [web.nodeId],
    ]);
    const proof = readOperatorProof(bytesOf(operator_proofs?.[web.nodeId]));
    const said = { nodeId: web.nodeId, tenant: "acme", context: "ops", tool: "cmd.run", deadlineMs: 60_000 };
    if (!proof) throw new Error("no proof");
    expect(verifyOperatorProof(operator, { ...said, argsJson: Buffer.from(args_json ?? "") }, proof)).toBe(true);

    const second = desk();
    await second.prepare({ resolved }, {}, { answers: [true] });
    expect(second.questions).toEqual(["sign and run it on 1 host?"]);
    expect(await desk().prepare({ resolved }, {}, { yes: true })).not.toBeNull();
  });

  test("a no at either question signs nothing, and at the first one keeps nothing", async () => {
    await createOperatorKey(place());
    const resolved = [previewed(fakeHost("web-1"))];
    expect(await failure(desk().prepare({ resolved }, {}, { answers: [false] }))).toMatchObject({ code: "cancelled" });
    expect(existsSync(knownNodesPath(place()))).toBe(false);
    const no = desk().prepare({ resolved }, {}, { answers: [true, false] });
    expect(await failure(no)).toMatchObject({ code: "cancelled", message: "nothing was signed, and nothing was run" });
  });

  test("where nobody can be asked, --yes stands for the question about the call and not for the one about keys", async () => {
    await createOperatorKey(place());
    const web = fakeHost("web-1");
    const resolved = [previewed(web)];
    const unknown = await failure(desk().prepare({ resolved }, {}, { yes: true }));
    expect(unknown).toMatchObject({ code: "usage", hint: expect.stringContaining("known_node") });
    expect(unknown.message).toContain(fingerprint(web.key));
    await know(web);
    expect(await desk().prepare({ resolved }, {}, { yes: true })).not.toBeNull();
    expect(await failure(desk().prepare({ resolved }))).toMatchObject({
      code: "usage",
      hint: expect.stringContaining("--yes"),
    });
  });

  test("a host whose key has changed gets no signature, whatever anybody answers", async () => {
    await createOperatorKey(place());
    const web = fakeHost("web-1");
    await know(web);
    const impostor = { ...web, key: newKey() };
    for (const options of [{ yes: true }, { answers: [true, true, true] }]) {
      const it = desk();
      const refused = await failure(it.prepare({ resolved: [previewed(impostor)] }, {}, options));
      expect([refused.code, refused.message]).toEqual(["conflict", expect.stringContaining(fingerprint(web.key))]);
      expect(refused.message).toContain("has another key than before");
      expect(it.questions).toEqual([]);
    }
  });

  test("a host that changed its key as the former one asked for is signed for, and known by the new one from then on", async () => {
    await createOperatorKey(place());
    const web = fakeHost("web-1");
    await know(web);
    const [second, third] = [newKey(), newKey()];
    const it = desk();
    it.keyChanges = [changeOfKey(web.nodeId, web.key, second), changeOfKey(web.nodeId, second, third)];
    expect(await it.prepare({ resolved: [previewed({ ...web, key: third })] }, {}, { yes: true })).not.toBeNull();
    expect(it.notes.join("\n")).toContain(`web-1 has changed its key to ${fingerprint(third)}`);
    // Known as such without anybody's word.
    expect(await desk().prepare({ resolved: [previewed({ ...web, key: third })] }, {}, { yes: true })).not.toBeNull();
    expect((await failure(desk().prepare({ resolved: [previewed(web)] }, {}, { yes: true }))).code).toBe("conflict");
  });

  test("changes that do not lead from the known key to the shown one, in one piece and for this host, change nothing", async () => {
    await createOperatorKey(place());
    const web = fakeHost("web-1");
    await know(web);
    const [second, thief] = [newKey(), newKey()];
    const change = (from: SigningKey, to: SigningKey, nodeId = web.nodeId) => changeOfKey(nodeId, from, to);
    const honest = change(web.key, thief);
    const stories = [
      [change(second, thief)],
      [change(second, thief), change(web.key, second)],
      [change(web.key, thief, crypto.randomUUID())],
      [{ ...honest, old_signature: change(thief, thief).old_signature }],
      [{ ...honest, new_signature: change(web.key, second).new_signature }],
      [{ ...honest, request: change(web.key, second).request }],
      [{ request: "AAAA", old_signature: "", new_signature: "" }],
    ];
    for (const keyChanges of stories) {
      const it = desk();
      it.keyChanges = keyChanges;
      const refused = await failure(it.prepare({ resolved: [previewed({ ...web, key: thief })] }, {}, { yes: true }));
      expect(refused.message).toContain("has another key than before");
    }
    expect(await desk().prepare({ resolved: [previewed(web)] }, {}, { yes: true })).not.toBeNull();
  });

  test("a second host of a name that is known is pointed out", async () => {
    await createOperatorKey(place());
    const web = fakeHost("web-1");
    await know(web);
    const it = desk();
    await failure(it.prepare({ resolved: [previewed(fakeHost("web-1"))] }, {}, { answers: [false] }));
    expect(it.notes.join("\n")).toContain(`ANOTHER HOST OF THIS NAME IS KNOWN: ${web.nodeId}`);
  });

  test("a host that has changed its name is shown with both", async () => {
    await createOperatorKey(place());
    const web = fakeHost("web-1");
    await know(web);
    const it = desk();
    await it.prepare({ resolved: [previewed({ ...web, name: "web-2" })] }, {}, { answers: [true] });
    expect(it.notes.join("\n")).toContain(`web-2  ${web.nodeId}, known as web-1`);
  });
});

describe("39 a preview with a false host name", () => {
  test("39 a controller that calls db-1 web-1: the signed name is shown; by name and with --yes it is refused", async () => {
    await createOperatorKey(place());
    const db = fakeHost("db-1");
    await know(db);
    const resolved = [previewed(db, { name: "web-1" })];
    const asked = { target: { Node: "web-1" } };
    const it = desk();
    await failure(it.prepare({ resolved }, asked, { answers: [false] }));
    expect(it.notes.join("\n")).toContain(`db-1  ${db.nodeId}, NOT what you asked for: @web-1`);
    expect(it.notes.join("\n")).not.toMatch(/^\s+web-1/m);
    const refused = await failure(desk().prepare({ resolved }, asked, { yes: true }));
    expect(refused).toMatchObject({ code: "conflict", message: expect.stringContaining("calls itself db-1") });
    const several = { target: { Nodes: ["web-1", "web-2"] } };
    expect(await failure(desk().prepare({ resolved }, several, { yes: true }))).toMatchObject({ code: "conflict" });
    for (const target of [
      { Node: "db-1" },
      { Node: db.nodeId },
      { Node: db.nodeId.slice(0, 8) },
      { Nodes: ["x", "db-1"] },
    ])
      expect(await desk().prepare({ resolved }, { target }, { yes: true })).not.toBeNull();
  });

  test("39 a name that the host did not sign, another host's challenge, and one for another tenant are refused", async () => {
    await createOperatorKey(place());
    const [web, db] = [fakeHost("web-1"), fakeHost("db-1")];
    await know(web);
    await know(db);
    const right = previewed(db);
    const message = wire.OperatorChallenge.decode(bytesOf(right.operator_challenge));
    const rewritten = (change: object) => ({
      ...right,
      operator_challenge: Buffer.from(wire.OperatorChallenge.encode({ ...message, ...change }).finish()).toString(
        "base64url",
      ),
    });
    const controller = newKey();
    const false_: Preview["resolved"][number][] = [
      rewritten({ hostName: "web-1" }),
      rewritten({ challenge: Buffer.alloc(32, 8) }),
      rewritten({ publicKey: web.key.raw }),
      rewritten({ publicKey: controller.raw }),
      rewritten({
        publicKey: Uint8Array.of(1, ...new Uint8Array(31)),
        signature: Uint8Array.of(1, ...new Uint8Array(63)),
      }),
      previewed(db, { nodeId: web.nodeId }),
      previewed(db, { tenant: "other" }),
      { ...right, operator_challenge: "AAAA" },
    ];
    for (const one of false_)
      for (const options of [{ yes: true }, { answers: [true, true] }]) {
        const refused = await failure(desk().prepare({ resolved: [one] }, {}, options));
        expect(refused).toMatchObject({ code: "conflict", message: expect.stringContaining("not signed by any host") });
      }
    // One that it made for that name itself has another key than the host is known by.
    const made = previewed({ ...web, key: controller });
    expect(await failure(desk().prepare({ resolved: [made] }, {}, { yes: true }))).toMatchObject({
      message: expect.stringContaining("another key than before"),
    });
  });

  test("39 a controller that says another tenant", async () => {
    await createOperatorKey(place());
    const web = fakeHost("web-1");
    await know(web);
    const moved = previewed(web, { tenant: "evil" });
    const refused = await failure(desk().prepare({ resolved: [moved] }, {}, { yes: true, tenant: "evil" }));
    expect(refused).toMatchObject({ code: "conflict", message: expect.stringContaining("was one of tenant acme") });
  });
});

describe("44 text that would deceive the eye is shown inert", () => {
  const nasty = "a\u001b[2J\u0007\u009b31m\u202edlrow\u2066\u200b\u00ad\u2028\u00a0\ufeff\u{e0041}\ud800z";

  test("44 in arguments, in names and in what a host is called", async () => {
    await createOperatorKey(place());
    const web = { ...fakeHost("web-1"), name: `web-1${nasty}` };
    const it = desk();
    await it.prepare(
      { resolved: [previewed(web, { contexts: ["*"] })] },
      { args: { command: nasty, [nasty]: 1 }, context: nasty, tool: "cmd.run" },
      { answers: [true, true] },
    );
    const shown = it.notes.concat(it.questions).join("");
    expect(shown).not.toMatch(/[^\x20-\x7e\n\ufffd]/);
    const inert =
      "a\\u001b[2J\\u0007\\u009b31m\\u202edlrow\\u2066\\u200b\\u00ad\\u2028\\u00a0\\ufeff\\udb40\\udc41\\ud800z";
    expect(shown).toContain(`arguments {"command":"${inert}","${inert}":1}`);
    expect(shown).toContain(`context   "${inert}"`);
    expect(shown).toContain(`"web-1${inert.replace("\\ud800", "\ufffd")}"  ${web.nodeId}`);
  });

  test("44 what is shown means what is signed, and words of other alphabets stay readable", () => {
    for (const text of [
      nasty,
      "\\u202e",
      'say "x"',
      "stra\u00dfe \u6771\u4eac \u0645\u0631\u062d\u0628\u0627",
      "\ud83d\ude00",
    ])
      expect(JSON.parse(visibleJson(JSON.stringify({ text })))).toEqual({ text });
    expect(visibleJson('"stra\u00dfe \u6771\u4eac"')).toBe('"stra\u00dfe \u6771\u4eac"');
    expect(visibleJson(JSON.stringify("\\u202e"))).toBe('"\\\\u202e"');
    expect([visibleName("web-1.example"), visibleName("a b"), visibleName("")]).toEqual([
      "web-1.example",
      '"a b"',
      '""',
    ]);
  });

  test("44 long arguments are shown by both ends, with how much is left out and the digest of all", async () => {
    await createOperatorKey(place());
    const it = desk();
    const args = { command: "tee", stdin: `first ${"x".repeat(5_000)} last` };
    await it.prepare({ resolved: [previewed(fakeHost("web-1"))] }, { args }, { answers: [true, true] });
    const shown = it.notes.join("\n");
    expect(shown).toMatch(
      /\{"command":"tee","stdin":"first x+\n {2}\.\.\. 2991 characters not shown, SHA-256 of all: /,
    );
    expect(shown).toContain(new Bun.CryptoHasher("sha256").update(JSON.stringify(args)).digest("hex"));
    expect(shown).toMatch(/x last"\}$/m);
  });
});

describe("the operator's key", () => {
  test("is made once, for its owner's eyes only, and is the same afterwards", async () => {
    const key = await createOperatorKey(place());
    expect((statSync(operatorKeyPath(place())).mode & 0o777).toString(8)).toBe("600");
    expect((await readOperatorKey(place()))?.publicKey.kid).toBe(key.kid);
    expect(await failure(createOperatorKey(place()))).toMatchObject({ code: "conflict" });
    expect((await readOperatorKey(place()))?.publicKey.kid).toBe(key.kid);
  });

  test("is closed when others could read it, and refused when it is damaged", async () => {
    const key = await createOperatorKey(place());
    const path = operatorKeyPath(place());
    const { chmodSync } = await import("node:fs");
    chmodSync(path, 0o644);
    expect((await readOperatorKey(place()))?.publicKey.kid).toBe(key.kid);
    expect((statSync(path).mode & 0o777).toString(8)).toBe("600");
    writeFileSync(path, "short");
    const damaged: AegisError = await failure(readOperatorKey(place()));
    expect(damaged).toMatchObject({
      code: "config_invalid",
      message: expect.stringContaining("its 5 bytes are no operator's key"),
    });
  });
});

describe("a locked key", () => {
  const passphrase = "corr\u00e9ct horse";
  const file = () => readFileSync(operatorKeyPath(place()));

  test("opens with its passphrase and no other, and shows its public half without", async () => {
    const key = await createOperatorKey(place(), passphrase);
    const stored = await readOperatorKey(place());
    expect([stored?.locked, stored?.publicKey.kid]).toEqual([true, key.kid]);
    for (const wrong of ["", `${passphrase} `]) expect(await stored?.open(wrong)).toBeNull();
    const opened = await stored?.open(passphrase.normalize("NFD"));
    expect(opened?.kid).toBe(key.kid);
    expect(key.verify(Buffer.from("x"), opened?.sign(Buffer.from("x")) ?? new Uint8Array())).toBe(true);
  });

  test("of which a byte was changed does not open", async () => {
    await createOperatorKey(place(), passphrase);
    const whole = file();
    const flipped = (at: number) => whole.map((byte, index) => (index === at ? byte ^ 1 : byte));
    for (const at of [55, 100]) {
      writeFileSync(operatorKeyPath(place()), flipped(at));
      expect(await (await readOperatorKey(place()))?.open(passphrase)).toBeNull();
    }
    // Another's public half would have its owner show hosts a key that is not the one that signs.
    writeFileSync(operatorKeyPath(place()), Buffer.concat([whole.subarray(0, 21), newKey().raw, whole.subarray(53)]));
    expect(await (await readOperatorKey(place()))?.open(passphrase)).toBeNull();
    for (const damaged of [whole.subarray(1), Buffer.concat([whole, Buffer.from("x")]), flipped(3)]) {
      writeFileSync(operatorKeyPath(place()), damaged);
      expect(await failure(readOperatorKey(place()))).toMatchObject({ code: "config_invalid" });
    }
  });

  test("is asked for after the question about the call; three wrong answers, or nobody to ask, sign nothing", async () => {
    await createOperatorKey(place(), passphrase);
    const web = fakeHost("web-1");
    await know(web);
    const resolved = [previewed(web)];
    const typed = (...hidden: string[]) => desk().prepare({ resolved }, {}, { answers: [true], hidden });
    expect(await typed("wrong", passphrase)).not.toBeNull();
    expect(await failure(typed("a", "b", "c", passphrase))).toMatchObject({ code: "unauthenticated" });
    expect(await failure(desk().prepare({ resolved }, {}, { yes: true }))).toMatchObject({
      message: expect.stringContaining("locked with a passphrase, and nobody can be asked"),
    });
    const no = desk().prepare({ resolved }, {}, { answers: [false], hidden: [passphrase] });
    expect(await failure(no)).toMatchObject({ code: "cancelled" });
  });
});

describe("known_nodes", () => {
  test("is read back as it was written, whatever a host is called, beside what its owner wrote", async () => {
    writeFileSync(join(home, "x"), "");
    const [web, odd] = [fakeHost("web-1"), fakeHost('a "b"\n\u202e #c')];
    await know(web);
    const path = knownNodesPath(place());
    writeFileSync(path, `# mine\n\n${readFileSync(path, "utf8").trimEnd()}`);
    await know(odd);
    const known = await loadKnownNodes(place());
    expect([...known.values()].map(({ nodeId, name, key }) => [nodeId, name, key.kid])).toEqual(
      [web, odd].map(({ nodeId, name, key }) => [nodeId, name, key.kid]),
    );
    expect(readFileSync(path, "utf8")).toStartWith("# mine\n");
    expect(readFileSync(path, "utf8")).not.toMatch(/[^\x20-\x7e\n]/);
  });

  test("with a line that cannot be read is refused as a whole, so that no host becomes a stranger by a slip", async () => {
    const web = fakeHost("web-1");
    await know(web);
    const path = knownNodesPath(place());
    const good = readFileSync(path, "utf8");
    const weak = `ed25519:${Buffer.from(Uint8Array.of(1, ...new Uint8Array(31))).toString("base64url")}`;
    for (const bad of [
      good.slice(1),
      good.replace(/ed25519:\S+/, weak),
      good.replace(" acme ", " "),
      `${good}${good}`,
      "x\n",
    ]) {
      writeFileSync(path, bad);
      expect(await failure(loadKnownNodes(place()))).toMatchObject({
        code: "config_invalid",
        message: expect.stringContaining(": line "),
      });
    }
  });
});
