import { describe, expect, test } from "bun:test";
import { PassThrough } from "node:stream";
import { sink } from "../../test/support/sink.ts";
import type { AegisError } from "../errors.ts";
import { command, group, leaf, many } from "./command.ts";
import { dispatch } from "./root.ts";
import { openTerminal } from "./terminal.ts";

let seen: unknown;

const greet = command({
  example: "aegis greet ann --times 2",
  rest: "WORD...",
  args: {
    name: { type: "positional", description: "whom" },
    titles: { type: "positional", valueHint: "TITLE...", required: false, description: "and what else they are" },
    times: { type: "string", valueHint: "N", default: "1", description: "how often" },
    mood: { type: "enum", options: ["warm", "cold"], description: "how" },
    label: many("K=V", "what to remember"),
    loud: { type: "boolean", alias: "l", description: "in capitals" },
    service: { type: "boolean", default: true, negativeDescription: "leave the service alone" },
  },
  async run({ args, every, rest }) {
    seen = { ...args, labels: every("label"), titles: every("titles"), rest: [...rest] };
    return args.loud ? 42 : undefined;
  },
});

const tree = group("A tree.", {
  greet: leaf("say hello", async () => ({ default: greet })),
  edge: group("A branch.", { list: leaf("list", async () => ({ default: greet })) }),
});

async function run(...argv: string[]) {
  seen = undefined;
  const streams = { stdin: new PassThrough(), stdout: sink(), stderr: sink() };
  const terminal = openTerminal(streams, {}, () => {});
  const stop = new AbortController().signal;
  const status = await dispatch(tree, argv, { terminal, env: {}, home: "/h", stop }).catch(
    (error: AegisError) => error,
  );
  return { status, out: streams.stdout.text() };
}

async function refused(...argv: string[]): Promise<string> {
  const { status } = await run(...argv);
  if (typeof status === "number") throw new Error(`${argv.join(" ")} was accepted with ${status}`);
  expect(status.exitCode).toBe(2);
  expect(seen).toBeUndefined();
  return `${status.message} | ${status.hint}`;
}

describe("a command", () => {
  test("gets its flags, repeated ones in order, and what follows -- untouched", async () => {
    const { status } = await run(
      ...["greet", "ann", "-l", "Dr", "--label", "a=1", "--times=3", "--label=b=2", "--no-service"],
      ...["--", "ls", "--color", "-h", "--"],
    );
    expect(status).toBe(42);
    expect(seen).toEqual({
      name: "ann",
      titles: ["Dr"],
      times: "3",
      mood: undefined,
      label: "b=2",
      labels: ["a=1", "b=2"],
      loud: true,
      service: false,
      rest: ["ls", "--color", "-h", "--"],
    });
  });

  test("gets its defaults, and ends with 0 when it says nothing else", async () => {
    expect((await run("greet", "ann")).status).toBe(0);
    expect(seen).toMatchObject({ times: "1", loud: false, service: true, titles: [], labels: [], rest: [] });
  });

  test("takes a lone - and a value with = for what they are", async () => {
    await run("greet", "-", "--times=-5");
    expect(seen).toMatchObject({ name: "-", times: "-5" });
  });
});

describe("what is not understood is refused with what was probably meant", () => {
  const cases: [string[], string][] = [
    [["gret"], 'unknown command "gret"; did you mean greet? | aegis --help'],
    [["edge", "lst"], 'unknown command "lst"; did you mean list? | aegis edge --help'],
    [["xyzzy"], 'unknown command "xyzzy" | aegis --help'],
    [["constructor"], 'unknown command "constructor" | aegis --help'],
    [["--verison"], "unknown flag --verison; did you mean --version? | aegis --help"],
    [["greet", "ann", "--tiems", "2"], "unknown flag --tiems; did you mean --times? | aegis greet --help"],
    [["greet", "ann", "--no-srvice"], "unknown flag --no-srvice; did you mean --no-service? | aegis greet --help"],
    [["greet", "ann", "--service"], "unknown flag --service; did you mean --no-service? | aegis greet --help"],
    [["greet", "ann", "-x"], "unknown flag -x | aegis greet --help"],
    [["greet", "ann", "--no-loud"], "unknown flag --no-loud; did you mean --loud? | aegis greet --help"],
    [["greet", "ann", "--times"], "--times needs a value: --times N | aegis greet --help"],
    [["greet", "ann", "--label"], "--label needs a value: --label K=V | aegis greet --help"],
    [
      ["greet", "ann", "--times", "--loud"],
      "--times needs a value, and --loud looks like a flag | write --times=--loud if it is meant",
    ],
    [["greet", "ann", "--times", "1", "--times", "2"], "--times is given twice | aegis greet --help"],
    [["greet", "ann", "--loud=yes"], "--loud takes no value | aegis greet --help"],
    [
      ["greet", "ann", "--mood", "wram"],
      '--mood "wram" is not one of warm, cold; did you mean warm? | aegis greet --help',
    ],
    [["greet"], "NAME is missing | aegis greet --help"],
  ];
  for (const [argv, message] of cases) test(argv.join(" "), async () => expect(await refused(...argv)).toBe(message));

  test("a command that takes nothing after -- says so, and one that does says where the words belong", async () => {
    const { rest: _, ...none } = greet;
    const one = command({
      example: "aegis one x -- y",
      rest: "CMD",
      args: { a: { type: "positional" } },
      run: async () => undefined,
    });
    const small = group("", {
      none: leaf("", async () => ({ default: none })),
      one: leaf("", async () => ({ default: one })),
    });
    const ask = async (...argv: string[]) =>
      await dispatch(small, argv, {} as never).catch((error: AegisError) => `${error.message} | ${error.hint}`);
    expect(await ask("none", "ann", "--", "x")).toBe("aegis none takes nothing after -- | aegis none --help");
    expect(await ask("one", "x", "y")).toBe('unexpected argument "y" | put CMD after --: aegis one x -- y');
  });
});

describe("help", () => {
  test("is what no arguments, a lone group and --help print, on stdout and with 0", async () => {
    for (const argv of [[], ["--help"], ["-h"]]) {
      const { status, out } = await run(...argv);
      expect(status).toBe(0);
      expect(out).toContain("  greet  say hello\n");
      expect(out).toContain("--version");
    }
    expect((await run("edge")).out).toContain("usage: aegis edge COMMAND");
  });

  test("of a command shows its flags as they are typed and one example, and runs nothing", async () => {
    const { status, out } = await run("greet", "--times", "3", "--help");
    expect(status).toBe(0);
    expect(seen).toBeUndefined();
    expect(out).toBe(
      [
        "say hello",
        "",
        "usage: aegis greet [FLAGS] NAME [TITLE...] -- WORD...",
        "",
        "  NAME      whom",
        "  TITLE...  and what else they are",
        "",
        "  --times N         how often (default 1)",
        "  --mood warm|cold  how",
        "  --label K=V...    what to remember",
        "  -l, --loud        in capitals",
        "  --no-service      leave the service alone",
        "  -h, --help        this text",
        "",
        "example:",
        "  aegis greet ann --times 2",
        "",
      ].join("\n"),
    );
  });

  test("belongs to what stands before --", async () => {
    await run("greet", "ann", "--", "--help");
    expect(seen).toMatchObject({ rest: ["--help"] });
  });
});
