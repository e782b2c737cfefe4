/** Signed calls over REST: proofs in, challenges and questions out, and every byte as it came. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { type TestApi, testApi } from "../../../test/support/test-api.ts";

let api: TestApi;
let nodeId: string;
beforeEach(async () => {
  api = await testApi();
  ({ nodeId } = await api.nodes.add(api.store, "web-1"));
});
afterEach(() => api.close());

const invoke = (body: object) =>
  api.request("POST", "/v1/edge/fleet/invoke", { body: { target: "All", tool: "cmd.run", ...body } });
const bytes = (text: string): Uint8Array => Buffer.from(text);
const base64url = (text: string): string => Buffer.from(text).toString("base64url");

test("the exact text of the arguments and the proof reach the host's call as they came", async () => {
  api.react = (call) => call.answer();
  // Not as anybody would write it: it must not be read and written again on the way.
  const args_json = '{"b":1,"a":"\\u00e9"}';
  const proof = "\u0000\u00ff any bytes";
  await (await invoke({ args_json, operator_proofs: { [nodeId]: base64url(proof) } })).text();
  const [call] = api.dispatcher.calls;
  expect(call?.request.argsJson).toBe(args_json);
  expect(Buffer.from(call?.request.operator ?? []).equals(bytes(proof))).toBe(true);
});

test("a proof is about exact text, for a node, in base64url: anything else is refused by name", async () => {
  for (const [body, message] of [
    [{ args: { command: "id" }, operator_proofs: { [nodeId]: "AA" } }, /args_json/],
    [{ operator_proofs: { [nodeId]: "AA" } }, /args_json/],
    [{ args_json: "{}", args: {}, operator_proofs: {} }, /not both/],
    [{ args_json: "[]" }, /no JSON object/],
    [{ args_json: "{}", operator_proofs: { "web-1": "AA" } }, /operator_proofs/],
    [{ args_json: "{}", operator_proofs: { [nodeId]: "A+/=" } }, /operator_proofs.*base64url/],
    [{ args_json: "{}", operator_proofs: { [nodeId]: 1 } }, /operator_proofs/],
  ] as const) {
    const response = await invoke(body);
    const { error } = (await response.json()) as { error: { message: string } };
    expect([response.status, error.message]).toEqual([400, expect.stringMatching(message)]);
  }
  expect(api.dispatcher.calls).toHaveLength(0);
});

test("signature_needed comes with the host's receipt and challenge, and what is posted then goes on in the same run", async () => {
  api.react = (call) => {
    if (Buffer.from(call.request.operator).toString() === "second") return call.answer();
    call.answer({
      ...{ ok: false, outcome: "err", errorKind: "operator_signature_stale", receipt: "verified" },
      receiptProof: { commandBody: bytes("c"), result: bytes("r"), signature: bytes("s"), keyId: bytes("k") },
      signAgain: bytes("challenge"),
    });
  };
  const response = await invoke({ args_json: "{}", operator_proofs: { [nodeId]: base64url("first") } });
  let text = "";
  let posted = false;
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk).toString();
    const runId = /"run_id":"([^"]+)"/.exec(text)?.[1];
    if (posted || !text.includes("signature_needed")) continue;
    posted = true;
    const body = { operator_proofs: { [nodeId]: base64url("second") } };
    const answer = await api.request("POST", `/v1/edge/fleet/${runId}/proofs`, { body });
    expect([answer.status, await answer.json()]).toEqual([202, { run_id: runId, taken: [nodeId] }]);
    const again = await api.request("POST", `/v1/edge/fleet/${runId}/proofs`, { body });
    expect(await again.json()).toEqual({ run_id: runId, taken: [] });
  }
  const needed = JSON.parse(/event: signature_needed\ndata: (.*)\n/.exec(text)?.[1] ?? "{}");
  expect(needed).toEqual({
    ...{ node_id: nodeId, reason: "operator_signature_stale", operator_challenge: base64url("challenge") },
    receipt: { command_body: "Yw", result: "cg", signature: "cw", key_id: "aw" },
  });
  expect(text).toContain('"outcome":"complete"');
});

test("a token without fleet.manage hands in no proof", async () => {
  const { token } = await api.token({ scopes: ["aegis.edge.fleet.read"] });
  const body = { operator_proofs: {} };
  expect((await api.request("POST", "/v1/edge/fleet/x/proofs", { token, body })).status).toBe(403);
});
