/** What an operator sees of a host in one line. */
import { expect, test } from "bun:test";
import type { Host } from "../../api/types.ts";
import { hostRow } from "./ls.ts";

const host: Host = {
  ...{ node_id: "3f2b8c1e-5d4a-4e6f-8a9b-0c1d2e3f4a5b", name: "web-1", tenant_id: "acme", status: "connected" },
  ...{ seal: "strict", connected_since: null, last_heartbeat_at: null, enrolled_at: "2026-01-01T00:00:00.000Z" },
  ...{ tags: [], software_version: "", key_fingerprint: "", token_expires_at: "2026-02-01T00:00:00.000Z" },
  ...{ active_calls: 0, queued_calls: 0 },
  capabilities: { os: "linux", arch: "x86_64", local_tools: [], mount_points: [], labels: {} },
};

test("a host without strict sessions says so beside its status; one with them says nothing of it", () => {
  expect(hostRow(host)[2]).toBe("connected");
  expect(hostRow({ ...host, seal: "compat" })[2]).toBe("connected seal=compat");
});
