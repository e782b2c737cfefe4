/** Who is one client to a limit. */
import { expect, test } from "bun:test";
import { clientNetwork } from "./client-network.ts";

const same: Array<[string, string]> = [
  ["192.0.2.1:4711", "192.0.2.1"],
  ["::ffff:192.0.2.1:4711", "192.0.2.1"],
  ["2001:db8:1:2:3:4:5:6:4711", "2001:db8:1:2::/64"],
  ["[2001:db8:1:2::9]:80", "2001:db8:1:2::/64"],
  ["::1:4711", "0:0:0:0::/64"],
  ["unknown", "unknown"],
];
for (const [peer, network] of same)
  test(`${peer} counts as ${network}`, () => expect(clientNetwork(peer)).toBe(network));

test("one machine with many addresses is one client, and its neighbour is another", () => {
  expect(clientNetwork("2001:db8:0:1::a:1")).toBe(clientNetwork("2001:db8:0:1:ffff::b:2"));
  expect(clientNetwork("2001:db8:0:1::a:1")).not.toBe(clientNetwork("2001:db8:0:2::a:1"));
});
