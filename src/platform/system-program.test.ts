import { expect, test } from "bun:test";
import { systemClock } from "./clock.ts";
import { systemProgram } from "./system-program.ts";

const run = systemProgram(systemClock);

test("a program's status and both outputs come back, and its input goes in", async () => {
  expect(await run("sh", ["-c", "cat; echo oops >&2; exit 3"], { stdin: "said" })).toEqual({
    status: 3,
    stdout: "said",
    stderr: "oops\n",
  });
  expect((await run("sh", ["-c", 'echo "$MINE"'], { env: { MINE: "set" } })).stdout).toBe("set\n");
});

test("what is not there, and what a signal ended, has no status and says why", async () => {
  expect(await run("no-such-program", [])).toEqual({
    status: null,
    stdout: "",
    stderr: "no-such-program is not on this machine",
  });
  expect(await run("sh", ["-c", "kill -9 $$"])).toMatchObject({ status: null, stderr: "sh was ended by SIGKILL" });
});

test("a program that takes too long is stopped", async () => {
  expect(await run("sleep", ["60"], { timeoutMs: 50 })).toMatchObject({
    status: null,
    stderr: "sleep was ended by SIGTERM",
  });
});
