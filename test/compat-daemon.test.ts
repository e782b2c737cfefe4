/** Our daemon, in a state directory that the other implementation wrote, and a controller of that kind, over TLS. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { createPublicKey, randomBytes, randomUUID, verify } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createTls } from "../src/controller/tls.ts";
import { runDaemon } from "../src/daemon/run.ts";
import { systemClock } from "../src/platform/clock.ts";
import { kinds, payloadOf, peerKey, progressInner } from "./support/peer/envelope.ts";
import { Fields, message } from "./support/peer/protobuf.ts";
import { type RustController, type RustControllerOptions, rustController } from "./support/peer/rust-controller.ts";
import { type RustStateDir, writeRustStateDir } from "./support/peer/rust-state-dir.ts";
import { recordedLog } from "./support/recorded-log.ts";

const work = mkdtempSync(join(tmpdir(), "aegis-compat-"));
/** Where tools may write: beside the host's own files, not around them. */
const marks = mkdtempSync(join(tmpdir(), "aegis-marks-"));
let tls: { cert: string; key: string };
let caPem = "";
beforeAll(async () => {
  mkdirSync(join(work, "keys"));
  await createTls(work, "localhost", Date.now());
  const read = (name: string) => readFileSync(join(work, "keys", name), "utf8");
  tls = { cert: read("tls.pem"), key: read("tls.key") };
  caPem = read("tls-ca.pem");
});
afterAll(() => {
  for (const directory of [work, marks]) rmSync(directory, { recursive: true });
});

const everything = `
    - name: default
      principals: [{sub: "*"}]
      capabilities:
        - {tool_pattern: "*", command_allowlist: ["*"], path_allowlist: ["**"], run_as_shell: true}
    - name: signed
      principals: [{sub: "*"}]
      require_operator_signature: true
      capabilities:
        - {tool_pattern: "*", command_allowlist: ["*"], path_allowlist: ["**"]}
    - name: ann-only
      principals: [{sub: ann}, {scope: aegis.admin}]
      capabilities:
        - {tool_pattern: "*", command_allowlist: ["*"], path_allowlist: ["**"]}
`;

interface Pair {
  controller: RustController;
  nodeId: string;
  key: ReturnType<typeof peerKey>;
  token: string;
  log: ReturnType<typeof recordedLog>;
  states: string[];
  stop(): Promise<void>;
}

const running: Pair[] = [];
afterEach(async () => {
  for (const pair of running.splice(0)) {
    await pair.stop();
    await pair.controller.close();
  }
});

async function pair(options: Omit<RustControllerOptions, "tls"> & Partial<RustStateDir> = {}): Promise<Pair> {
  const controller = await rustController({ ...options, tls });
  const home = mkdtempSync(join(work, "home-"));
  const stateDir = join(home, ".aegis/edge");
  const seed = randomBytes(32);
  const [key, nodeId] = [peerKey(seed), randomUUID()];
  const { token } = await writeRustStateDir(stateDir, {
    ...{ seed, key, nodeId },
    // A bare host and port, as the peer's enrollment tokens have it.
    endpoint: `localhost:${controller.port}`,
    controller: `      tls:\n        enabled: true\n        ca_pem: |\n${caPem.replace(/^/gm, "          ")}`,
    contexts: everything,
    ...options,
  });
  const log = recordedLog();
  const states: string[] = [];
  const stop = new AbortController();
  const ended = runDaemon({
    ...{ stateDir, home, clock: systemClock, log, signal: stop.signal },
    env: { PATH: process.env.PATH ?? "", HOME: home },
    onState: (state) => states.push(state),
  });
  const made: Pair = {
    ...{ controller, nodeId, key, token, log, states },
    async stop() {
      stop.abort();
      await ended;
    },
  };
  running.push(made);
  ended.catch(() => {});
  await Promise.race([until(() => controller.streams.length > 0), ended]);
  return made;
}

async function until(condition: () => unknown, ms = 5_000): Promise<void> {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) throw new Error("it did not come to that");
    await Bun.sleep(5);
  }
}

const events = ({ controller }: Pair) => controller.streams.at(-1) ?? [];

/** Judges an envelope as only its format says, with the key that the host's `node.pub` holds. */
function expectSigned(
  { key, nodeId, token }: Pair,
  envelope: Fields,
  kind: number,
  streamId: string,
  inner: Uint8Array,
) {
  expect(envelope.text(1)).toBe(token);
  const payload = envelope.bytes(3);
  const timestampMs = Number(payload.readBigUInt64LE(1));
  expect(payload.toString("hex")).toBe(payloadOf({ kind, timestampMs, nodeId, streamId, inner }).toString("hex"));
  expect(Math.abs(Date.now() - timestampMs)).toBeLessThan(30_000);
  const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), key.publicKey]);
  const publicKey = createPublicKey({ key: spki, format: "der", type: "spki" });
  expect(verify(null, payload, publicKey, envelope.bytes(2))).toBe(true);
}

const streamOf = (one: Pair) => events(one)[0]?.sub(1).text(3) ?? "";
const shell = (script: string) => ({ command: "sh", args: ["-c", script] });

/** What the result of one call says. */
async function run(one: Pair, invoke: Parameters<RustController["invoke"]>[0]): Promise<Fields> {
  const id = one.controller.invoke(invoke);
  return (await one.controller.result(id)).sub(3);
}

describe("our daemon towards a Rust controller", () => {
  for (const lateHeaders of [false, true]) {
    test(`says Hello and beats, with headers ${lateHeaders ? "that come with the first command" : "at once"}`, async () => {
      const one = await pair({ lateHeaders });
      const [hello] = events(one);
      const said = hello?.sub(1) ?? new Fields(message());
      expectSigned(one, said.sub(1), kinds.hello, streamOf(one), Buffer.alloc(0));
      // A Hello of the peer's: nothing of a strict session in it.
      expect(said.numbers).toEqual([1, 2, 3]);
      expect(said.sub(2).text(1)).toBe("linux");
      expect(one.log.find("compat_session")).toMatchObject({ level: "warn", stream_id: streamOf(one) });
      await until(() => events(one).length > 1);
      const beat = events(one)[1]?.sub(2) ?? new Fields(message());
      expectSigned(one, beat.sub(1), kinds.heartbeat, streamOf(one), Buffer.alloc(0));
      expect((await run(one, { args: { command: "true" } })).number(1)).toBe(1);
      expect(one.states).toContain("connected");
    });
  }

  test("runs a program for an empty token and an empty inner name; output comes live and again in the result", async () => {
    const one = await pair();
    const commandId = one.controller.invoke({
      args: shell("echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three"),
    });
    const result = await one.controller.result(commandId);
    expectSigned(one, result.sub(1), kinds.result, streamOf(one), Buffer.from(commandId));
    const answer = result.sub(3);
    expect([answer.number(1), answer.number(2), answer.text(3), answer.text(4)]).toEqual([
      1,
      0,
      "one\nthree\n",
      "two\n",
    ]);
    for (const number of [...result.numbers, ...answer.numbers]) expect(number).toBeLessThan(1000);
    const progress = events(one)
      .filter((event) => event.has(4))
      .map((event) => event.sub(4));
    expect(progress.map((event) => [event.number(5), event.number(4), event.text(3)])).toEqual([
      [0, 0, "one\n"],
      [1, 0, "two\n"],
      [0, 1, "three\n"],
    ]);
    for (const event of progress) {
      const inner = progressInner(commandId, event.number(4), event.number(5) === 1, event.bytes(3));
      expectSigned(one, event.sub(1), kinds.progress, streamOf(one), inner);
    }
  });

  test("is not held up by a controller that takes megabytes of output and never grants credit", async () => {
    const one = await pair();
    const result = await run(one, { args: shell("head -c 6000000 /dev/zero | tr '\\0' x; echo end") });
    expect(result.number(1)).toBe(1);
    // What the result could not hold is said in its middle, since the peer knows no head and tail.
    expect(result.text(3)).toMatch(/^x+\n\[\d+ bytes omitted\]\nx+end\n$/);
    const live = events(one)
      .filter((event) => event.has(4))
      .reduce((sum, event) => sum + event.sub(4).bytes(3).length, 0);
    expect(live).toBe(6_000_004);
  });

  test("stops a program when its call is cancelled, and when its deadline passes", async () => {
    const one = await pair();
    const cancelled = one.controller.invoke({ args: { command: "sleep", args: ["30"] } });
    await until(() => one.controller.streams.length > 0);
    await Bun.sleep(50);
    one.controller.cancel(cancelled);
    expect((await one.controller.result(cancelled)).sub(3).text(6)).toBe("cancelled");
    const late = await run(one, { args: { command: "sleep", args: ["30"] }, deadlineSecs: 1 });
    expect(late.text(6)).toBe("timeout");
  });

  test("runs a command once, however often it is sent", async () => {
    const one = await pair();
    const mark = join(marks, randomUUID());
    const commandId = randomUUID();
    const answers = () => events(one).filter((event) => event.has(3) && event.sub(3).text(2) === commandId);
    for (let n = 0; n < 2; n++) one.controller.invoke({ commandId, args: shell(`echo ran >> ${mark}`) });
    await until(() => answers().length === 2);
    expect(answers().map((event) => event.sub(3).sub(3).text(6))).toContain("replayed");
    expect(readFileSync(mark, "utf8")).toBe("ran\n");
  });

  test("ignores what the peer's routing left among the arguments", async () => {
    const one = await pair();
    const args = { ...shell("echo routed"), target: { edge_node_id: one.nodeId } };
    expect((await run(one, { args })).text(3)).toBe("routed\n");
  });

  test("keeps a result that was ready while the stream was down, and brings it on the next", async () => {
    const one = await pair();
    const commandId = one.controller.invoke({ args: shell("sleep 0.4; echo late") });
    await Bun.sleep(100);
    one.controller.hangUp();
    await until(() => one.controller.streams.length === 2, 10_000);
    const result = await one.controller.result(commandId);
    expect(result.sub(3).text(3)).toBe("late\n");
    expectSigned(one, result.sub(1), kinds.result, streamOf(one), Buffer.from(commandId));
  });
});

describe("whoever the controller is, our daemon", () => {
  const refusals: Record<string, [Parameters<RustController["invoke"]>[0], string, RegExp]> = {
    "another inner context name": [{ innerContext: "operator" }, "envelope_invalid", /context names differ/],
    "another tenant": [{ tenant: "evil" }, "envelope_invalid", /tenant acme/],
    "no tenant": [{ tenant: "" }, "envelope_invalid", /tenant acme/],
    "a token that is none": [{ token: "secret" }, "envelope_invalid", /neither empty nor a JWT/],
    "no inner envelope": [{ withoutEnvelope: true }, "envelope_invalid", /seal_envelope is missing/],
    "a context that is not there": [{ context: "zaru-free" }, "security_context_not_found", /zaru-free/],
    "a context for named callers": [{ context: "ann-only" }, "policy_violation", /./],
    "a named caller's token, which nobody verified": [
      { context: "ann-only", token: `e30.${Buffer.from('{"sub":"ann"}').toString("base64url")}.AA` },
      "policy_violation",
      /./,
    ],
    "a context that wants an operator's signature": [{ context: "signed" }, "operator_signature_required", /signed/],
    "such a context and a proof beside it": [
      { context: "signed", extra: [[1002, message([1, randomBytes(32)], [6, randomBytes(64)])]] },
      "operator_signature_required",
      /signed/,
    ],
    "a tool it does not have": [{ tool: "fs.format" }, "tool_not_found", /fs\.format/],
    "no arguments": [{ args: undefined as never }, "invalid_args", /command/],
  };
  test(`refuses ${Object.keys(refusals).join(", ")}`, async () => {
    const one = await pair();
    const mark = join(marks, randomUUID());
    for (const [what, [invoke, kind, text]] of Object.entries(refusals)) {
      const result = await run(one, { args: shell(`touch ${mark}`), ...invoke });
      expect({ what, ok: result.number(1), kind: result.text(6) }).toEqual({ what, ok: 0, kind });
      expect(result.text(7)).toMatch(text);
    }
    expect(existsSync(mark)).toBe(false);
    await run(one, { args: shell(`touch ${mark}`) });
    expect(existsSync(mark)).toBe(true);
  });

  test("takes a filled envelope as well as an empty one", async () => {
    const one = await pair();
    const result = await run(one, { args: { command: "true" }, innerContext: "default", token: "a.b.c" });
    expect(result.number(1)).toBe(1);
  });

  test("does not let it change settings, and hangs up on frames of a strict session", async () => {
    const one = await pair();
    one.controller.command([3, message([1, message([1, message([1, "seal"], [2, message([3, "compat"])])])])]);
    await until(() => one.log.find("config_ignored"));
    one.controller.command([1000, message([1, 0x11])]);
    await until(() => one.log.find("disconnected"));
    expect(one.log.find("disconnected")).toMatchObject({ reason: expect.stringContaining("seal_frame") });
  });

  test("waits longer each time when it is let in and dropped, and warns each time that the session is not strict", async () => {
    const one = await pair({ known: [] });
    await until(() => one.log.lines.filter((line) => line.event === "disconnected").length === 2, 10_000);
    const waits = one.log.lines.filter((line) => line.event === "disconnected");
    expect(waits.map((line) => line.failures)).toEqual([1, 2]);
    expect(waits[0]).toMatchObject({ reason: expect.stringContaining("does not know this host") });
    expect(one.states).not.toContain("connected");
    expect(one.log.lines.filter((line) => line.event === "compat_session")).toHaveLength(2);
  });

  test("with spec.require_operator_signature runs nothing at all", async () => {
    const one = await pair({ spec: "  require_operator_signature: true" });
    const result = await run(one, { args: { command: "true" } });
    expect(result.text(6)).toBe("operator_signature_required");
  });

  test("uses one connection for all of it", async () => {
    const one = await pair();
    for (let n = 0; n < 3; n++) await run(one, { args: { command: "true" } });
    expect(one.controller.connections).toBe(1);
  });
});
