import { expect, test } from "bun:test";
import type { ProgramEnd } from "../platform/run-program.ts";
import { type ConfinementOptions, confinement } from "./confinement.ts";
import { sandboxExec } from "./seatbelt.ts";

const ended = (status: number | null, stderr = ""): ProgramEnd => ({ status, stdout: "", stderr });

/** A Mac that answers like this: first to the try of the profile, then to the look at what it closes. */
async function onMac(answers: ProgramEnd[], more: Partial<ConfinementOptions> = {}) {
  const asked: string[][] = [];
  const chosen = await confinement({
    ...{ platform: "darwin", stateDir: "/Users/ann/.aegis/edge", home: "/Users/ann", env: {}, uid: 501 },
    ...{ protectedPaths: ["/Users/ann/.aegis/edge"], readOnlyPaths: ["/usr/local/bin/aegis"] },
    run: async (command, args) => {
      asked.push([command, ...args]);
      return answers.shift() ?? ended(null, "nothing more was to be asked");
    },
    ...more,
  });
  return { asked, chosen };
}

test("on macOS children start through sandbox-exec, once it was seen to close what it should", async () => {
  const { asked, chosen } = await onMac([ended(0), ended(1, "ls: Operation not permitted")]);
  expect(chosen.launcher).toBeNull();
  expect(chosen.protection).toMatchObject({ kind: "protected" });
  expect(asked.map(([command, flag, , ...rest]) => [command, flag, ...rest])).toEqual([
    [sandboxExec, "-p", "--", "/usr/bin/true"],
    [sandboxExec, "-p", "--", "/bin/ls", "/Users/ann/.aegis/edge"],
  ]);
  const { wrapper } = chosen;
  expect(wrapper?.path).toBe("/usr/bin/sandbox-exec");
  const [flag, profile, ...rest] = wrapper?.args({ command: "/bin/date", name: "date", args: ["-u"] }) ?? [];
  expect([flag, ...rest]).toEqual(["-p", "--", "/bin/date", "-u"]);
  expect(profile).toBe(asked[0]?.[2] ?? "");
  for (const path of ["/Users/ann/.aegis/edge", "/usr/local/bin/aegis", "/Users/ann/Library/LaunchAgents"])
    expect(profile).toContain(`(subpath "${path}")`);
});

test("where sandbox-exec is missing, refuses the profile, or does not heed it, tools start without and status says so", async () => {
  const cases: [ProgramEnd[], string][] = [
    [[ended(null, "/usr/bin/sandbox-exec cannot be started: no such file")], "no such file"],
    [[ended(65, "sandbox-exec: unbound variable: file-link")], "says: sandbox-exec: unbound variable: file-link"],
    [[ended(71)], "/usr/bin/sandbox-exec ended with 71"],
    [[ended(0), ended(0)], "/Users/ann/.aegis/edge can be read all the same"],
  ];
  for (const [answers, why] of cases) {
    const { chosen } = await onMac(answers);
    expect(chosen).toMatchObject({ launcher: null, wrapper: null, protection: { kind: "readable" } });
    expect(chosen.protection).toMatchObject({ why: expect.stringContaining(why) });
  }
});

test("a path that the profile cannot hold is told, and nothing is run", async () => {
  const { asked, chosen } = await onMac([], { protectedPaths: ["/Users/a\nb"] });
  expect(asked).toEqual([]);
  expect(chosen.protection).toMatchObject({ kind: "readable", why: expect.stringContaining("cannot stand") });
});

test("elsewhere sandbox-exec is not asked", async () => {
  const { asked, chosen } = await onMac([], { platform: "linux", stateDir: "/dev/null/none" });
  expect(asked.flat()).not.toContain(sandboxExec);
  expect(chosen.wrapper).toBeNull();
});
