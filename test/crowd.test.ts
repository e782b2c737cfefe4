/** A thousand callers at once, on hosts that really run: each gets its own answer, once, with its receipt. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { connect } from "node:net";
import { verifyDataDir } from "../src/controller/audit-verify.ts";
import { eventually } from "./support/aegis.ts";
import { type BareHost, bareHost, type Enrolling, enrolling } from "./support/enrolling.ts";

let controller: Enrolling;
const hosts: BareHost[] = [];
const cleanUp: Array<() => Promise<unknown> | unknown> = [];
beforeEach(async () => {
  controller = await enrolling();
});
afterEach(async () => {
  for (const undo of cleanUp.splice(0).reverse()) await undo();
  await controller.remove();
  for (const host of hosts.splice(0)) host.remove();
});

/** Its last event ends it. A socket of its own: fetch would hold most of them back. */
function invoke(name: string, port: number, token: string): Promise<string> {
  const body = JSON.stringify({ target: { Node: name }, tool: "host.info", args: {}, policy: { deadline_secs: 120 } });
  const head = `POST /v1/edge/fleet/invoke HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}`;
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = connect(port, "127.0.0.1", () =>
      socket.write(`${head}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`),
    );
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`closed after: ${text}`)));
    socket.on("data", (bytes) => {
      text += bytes;
      if (!/event: fleet_result[\s\S]*\n\n/.test(text)) return;
      resolve(text);
      socket.destroy();
    });
  });
}

test("all of them are served, the controller stays ready, and its audit is whole", async () => {
  const names = ["a", "b", "c", "d"];
  for (const name of names) {
    const host = bareHost();
    hosts.push(host);
    await host.enroll(await controller.issue({ name }));
    const daemon = await host.run();
    cleanUp.push(() => daemon.stop());
  }
  await eventually("all are connected", async () => (await controller.api.allHosts({ connected: true })).length === 4);
  const port = Number(new URL(controller.httpUrl).port);
  const token = controller.token.reveal();
  const callers = [...Array(1_000).keys()].map((at) => invoke(names[at % names.length] ?? "", port, token));
  const ready = await fetch(`${controller.httpUrl}/readyz`);
  expect(ready.status).toBe(200);
  const answers = await Promise.all(callers);
  expect(
    answers.filter((text) => !/event: command_result\ndata: .*"ok":true.*"receipt":"verified"/.test(text)),
  ).toEqual([]);
  const ids = answers.map((text) => /"command_id":"([^"]+)"/.exec(text)?.[1]);
  expect(new Set(ids).size).toBe(1_000);
  const report = await verifyDataDir({ dataDir: controller.dataDir, controllerId: controller.controllerId });
  expect(report).toMatchObject({ receipts: { verified: 1_000 }, unanswered: 0, problems: [] });
}, 60_000);
