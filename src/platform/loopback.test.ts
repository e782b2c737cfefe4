import { expect, test } from "bun:test";
import { isLoopback } from "./loopback.ts";

test("what this machine alone can reach, and no name that looks like it", () => {
  const asked = ["localhost", "127.0.0.1", "127.9.8.7", "::1", "127.999.1.1", "127.0.0.1.example", "localhost.example"];
  expect(asked.filter(isLoopback)).toEqual(["localhost", "127.0.0.1", "127.9.8.7", "::1"]);
  for (const other of ["10.0.0.1", "0.0.0.0", "::", "::2", "", "LOCALHOST."]) expect(isLoopback(other)).toBe(false);
});
