import { expect, test } from "bun:test";
import { nearest } from "./nearest.ts";

const keys = ["heartbeat_interval_secs", "tenant_id", "seal", "seal_root", "edge", "os"];

test("a slip of the finger finds the word that was meant", () => {
  expect(nearest("heartbeat_interval_sec", keys)).toBe("heartbeat_interval_secs");
  expect(nearest("hearbeat_intervall_secs", keys)).toBe("heartbeat_interval_secs");
  expect(nearest("tenantid", keys)).toBe("tenant_id");
  expect(nearest("Tenant_ID", keys)).toBe("tenant_id");
  expect(nearest("egde", keys)).toBe("edge");
  expect(nearest("sael", keys)).toBe("seal");
});

test("the nearest wins, not the first", () => {
  expect(nearest("seal_rot", ["seal", "seal_boat", "seal_root"])).toBe("seal_root");
});

test("something else altogether is not guessed at", () => {
  expect(nearest("observability", keys)).toBeUndefined();
  expect(nearest("xy", keys)).toBeUndefined();
  expect(nearest("", keys)).toBeUndefined();
  expect(nearest("edge", [])).toBeUndefined();
  expect(nearest("x".repeat(1_000_000), ["y".repeat(1_000_000)])).toBeUndefined();
});
