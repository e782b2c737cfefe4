/** What an operator and a host sign for each other: a changed bit says nothing else, and makes nobody else a signer. */
import {
  readOperatorChallenge,
  readOperatorProof,
  signOperatorChallenge,
  signOperatorProof,
  verifyOperatorProof,
} from "../../src/envelope/operator.ts";
import { proveResult } from "../../src/envelope/proven-result.ts";
import { importSigningKey } from "../../src/envelope/public-key.ts";
import { signReceipt } from "../../src/envelope/receipt.ts";
import { aegis } from "../../src/wire/gen/messages.js";
import { type FuzzTarget, taken } from "./fuzz.ts";
import { mutated } from "./random.ts";

const wire = aegis.cluster.v1;
const nodeKey = importSigningKey(new Uint8Array(32).fill(1));
const operatorKey = importSigningKey(new Uint8Array(32).fill(5));
const nodeId = "6f1c2b1e-3c1a-4d7e-8f59-0a1b2c3d4e5f";
const commandId = "0b0e7c1a-55a4-4a39-9d3b-7f1f7a1c9a11";
const call = { nodeId, tenant: "acme", context: "ops", tool: "cmd.run", argsJson: Buffer.from("{}"), deadlineMs: 1 };
const given = { challenge: new Uint8Array(32).fill(7), statementId: new Uint8Array(16), issuedMs: 9, note: "n" };
const proofBytes = signOperatorProof(operatorKey, call, given);
const challengeBytes = signOperatorChallenge(nodeKey, {
  ...{ nodeId, tenant: "acme", challenge: given.challenge, hostName: "web-1", contexts: ["ops"] },
});
const commandBody = wire.EdgeCommand.encode({
  invokeTool: {
    commandId,
    toolName: "cmd.run",
    securityContextName: "ops",
    argsJson: call.argsJson,
    operator: proofBytes,
  },
}).finish();
const result = wire.CommandResultEvent.encode({ commandId, started: true, result: { ok: true } }).finish();
const receipt = { commandBody, result, signature: signReceipt(nodeKey, { nodeId, commandId, commandBody, result }) };
const host = { nodeId, key: nodeKey };

const same = (left: Uint8Array, right: Uint8Array) => Buffer.from(left).equals(right);

export const operatorTargets: readonly FuzzTarget[] = [
  {
    name: "a changed operator's proof is refused or means the same",
    run(by) {
      const bytes = by.below(8) === 0 ? proofBytes : mutated(proofBytes, by);
      const read = readOperatorProof(bytes);
      const isProof = read !== null && verifyOperatorProof(operatorKey, call, read);
      if (bytes === proofBytes) return taken(isProof, "an honest proof");
      if (!isProof) return "refused";
      const kept = same(read.challenge, given.challenge) && same(read.statementId, given.statementId);
      if (!kept || read.issuedMs !== given.issuedMs || read.note !== given.note)
        throw new Error("another proof was taken");
      return "taken";
    },
  },
  {
    name: "a changed challenge of a host is refused or means the same",
    run(by) {
      const bytes = by.below(8) === 0 ? challengeBytes : mutated(challengeBytes, by);
      const read = readOperatorChallenge(bytes, { nodeId, tenant: "acme" });
      if (bytes === challengeBytes) return taken(read !== null, "an honest challenge");
      if (!read) return "refused";
      if (!same(read.challenge, given.challenge) || read.hostName !== "web-1" || read.key.kid !== nodeKey.kid)
        throw new Error("another challenge was taken");
      return "taken";
    },
  },
  {
    name: "a changed receipt proves nothing",
    run(by) {
      if (by.below(8) === 0) return taken(proveResult(receipt, host) !== null, "an honest receipt");
      const part = by.pick(["commandBody", "result", "signature"] as const);
      const changed = { ...receipt, [part]: mutated(receipt[part], by) };
      if (proveResult(changed, host) && !same(changed[part], receipt[part]))
        throw new Error(`a changed ${part} was proven`);
      return "refused";
    },
  },
];
