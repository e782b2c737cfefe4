/** An InvokeTool is turned into plain values whole, or not at all. */
import { describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { aegis } from "../wire/gen/messages.js";
import { toLong } from "../wire/whole.ts";
import { maxArgsBytes, readInvoke } from "./received.ts";

const wire = aegis.cluster.v1;
type Invoke = aegis.cluster.v1.InvokeToolCommand.$Properties;

const commandId = randomUUID();
const good: Invoke = {
  commandId,
  securityContextName: "default",
  sealEnvelope: {
    userSecurityToken: "a.b.c",
    tenantId: "acme",
    securityContextName: "default",
    signature: new Uint8Array(64),
  },
  toolName: "cmd.run",
  argsJson: Buffer.from("{}"),
};

/** Through the wire, as it comes in life. */
function read(change: Invoke) {
  const body = wire.InvokeToolCommand.encode({ ...good, ...change }).finish();
  return readInvoke(wire.InvokeToolCommand.decode(body), { body, timeMs: 7, receivedAt: 9 });
}
const reason = (change: Invoke) => {
  const reading = read(change);
  return reading?.kind === "malformed" ? reading.reason : reading?.kind;
};

test("every part arrives as a plain value", () => {
  const reading = read({ deadline: { seconds: toLong(2), nanos: 5_000_000 }, operator: Buffer.from([1]) });
  expect(reading).toMatchObject({
    kind: "call",
    call: { commandId, tool: "cmd.run", context: "default", tenant: "acme", userToken: "a.b.c", deadlineMs: 2_005 },
  });
  expect(reading?.kind === "call" && reading.call).toMatchObject({ frameTimeMs: 7, receivedAt: 9, initialCredit: 0 });
});

test("without a command id there is nothing to answer to", () => {
  for (const id of ["", "x", commandId.toUpperCase(), `${commandId} `]) expect(read({ commandId: id })).toBeNull();
});

describe("malformed", () => {
  const cases: Array<[Invoke, RegExp]> = [
    [{ sealEnvelope: null }, /seal_envelope is missing/],
    [{ sealEnvelope: { ...good.sealEnvelope, payload: {} } }, /payload must be absent/],
    [{ args: {} }, /args must be absent/],
    [{ securityContextName: "other" }, /two security context names differ/],
    [{ argsJson: new Uint8Array(maxArgsBytes + 1) }, /args_json has 1048577 bytes/],
    [{ deadline: { seconds: toLong(2 ** 53), nanos: 0 } }, /deadline/],
    [{ deadline: { seconds: toLong(2 ** 52), nanos: 0 } }, /deadline/],
    [{ deadline: { seconds: toLong(1), nanos: 999_999 } }, /deadline/],
    [{ initialCredit: toLong(4 * 1024 * 1024 + 1), onNoCredit: wire.OnNoCredit.ON_NO_CREDIT_WAIT }, /initial_credit/],
    [{ initialCredit: toLong(1) }, /on_no_credit must be WAIT or DROP/],
    [{ initialCredit: toLong(1), onNoCredit: 9 as never }, /on_no_credit must be WAIT or DROP/],
  ];
  for (const [change, expected] of cases)
    test(`${Object.keys(change).join(", ")}: ${expected.source}`, () => expect(reason(change)).toMatch(expected));

  test("what is just within the limits is a call", () => {
    const limits: Invoke[] = [
      { argsJson: new Uint8Array(maxArgsBytes) },
      { deadline: { seconds: toLong(0), nanos: 1_000_000 } },
      { initialCredit: toLong(4 * 1024 * 1024), onNoCredit: wire.OnNoCredit.ON_NO_CREDIT_WAIT },
      { initialCredit: toLong(4 * 1024 * 1024), onNoCredit: wire.OnNoCredit.ON_NO_CREDIT_DROP },
    ];
    for (const change of limits) expect(reason(change)).toBe("call");
  });
});
