/** A session from Hello to its end, with an honest relay. */
import { expect, test } from "bun:test";
import { settled } from "./support/scripted-host.ts";
import { strictPair } from "./support/strict-pair.ts";

test("a call goes through and its receipt verifies, also long after the handshake", async () => {
  const pair = await strictPair();
  const session = await pair.connected();
  await pair.pass(60_000);
  const call = pair.call({ nodeId: pair.identity.nodeId });
  await settled();
  const [run] = pair.daemon.tool.runs;
  await run?.context.output("stdout", Buffer.from("hello\n"));
  run?.end({ exitCode: 0 });
  const result = await call.result;
  expect(result).toMatchObject({ ok: true, receipt: "verified", output: "complete" });
  expect(pair.daemon.outbox.waiting).toBe(0);
  session.stop();
  expect(await session.ended).toEqual({ kind: "shutdown" });
  await settled();
  expect(pair.sessions.size).toBe(0);
});
