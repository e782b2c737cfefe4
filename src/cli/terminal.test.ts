import { describe, expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import { PassThrough } from "node:stream";
import { sink } from "../../test/support/sink.ts";
import { AegisError } from "../errors.ts";
import { facts, openTerminal, table } from "./terminal.ts";

const never = new AbortController().signal;

function screen({ tty = false, env = {} as Record<string, string>, typed = "" } = {}) {
  const stdin = Object.assign(new PassThrough(), { isTTY: tty });
  const stdout = Object.assign(sink(), { isTTY: tty });
  const stderr = Object.assign(sink(), { isTTY: tty, columns: 120 });
  stdin.end(typed);
  return { terminal: openTerminal({ stdin, stdout, stderr }, env, () => {}), out: stdout.text, err: stderr.text };
}

test("results go to stdout, words to stderr, an error brings its hint on a line of its own", async () => {
  const { terminal, out, err } = screen();
  await terminal.data("a\n");
  await terminal.data(new Uint8Array([255, 10]));
  terminal.note("working");
  terminal.warn("old");
  terminal.fail(new AegisError("usage", "no host web-9", { hint: "aegis edge ls" }));
  expect(out()).toBe("a\n\ufffd\n");
  expect(err()).toBe("working\nwarning: old\nerror: no host web-9\nhint: aegis edge ls\n");
});

test("the same words over and over are all shown", () => {
  const { terminal, err } = screen();
  for (let line = 0; line < 20; line++) terminal.note("again");
  expect(err().split("\n")).toHaveLength(21);
});

test("colours are for people who did not say NO_COLOR", () => {
  const coloured = (options: Parameters<typeof screen>[0]) => {
    const { terminal, err } = screen(options);
    terminal.warn("old");
    return err().includes("\u001b[");
  };
  expect(coloured({ tty: true })).toBe(true);
  expect(coloured({ tty: true, env: { NO_COLOR: "1" } })).toBe(false);
  expect(coloured({ tty: true, env: { TERM: "dumb" } })).toBe(false);
  expect(coloured({ tty: false })).toBe(false);
});

test("what hosts and controllers say cannot move the cursor", () => {
  const { terminal, err } = screen({ tty: true, env: { NO_COLOR: "1" } });
  terminal.note("web\u001b[2J-1\r\u0007\u009b");
  expect(err()).toBe("web\ufffd[2J-1\ufffd\ufffd\ufffd\n");
  expect(table(["NAME"], [["a\u001b[31mb\nc"]])).toBe("NAME\na\ufffd[31mb c\n");
  expect(facts([["name", "a\u001bb"]])).toBe("name  a\ufffdb\n");
});

describe("a question", () => {
  test("is put to a person, and only y or yes is yes", async () => {
    for (const [typed, answer] of [
      ["y\n", true],
      ["YES\n", true],
      ["n\n", false],
      ["\n", false],
      ["", false],
      ["yo\n", false],
    ] as const) {
      const { terminal, err } = screen({ tty: true, typed });
      expect(await terminal.confirm("really?", never)).toBe(answer);
      expect(err()).toBe("really? [y/N] ");
    }
  });

  test("is not asked where nobody can answer", async () => {
    for (const options of [{ typed: "y\n" }, { tty: true, env: { NO_COLOR: "1" }, typed: "y\n" }]) {
      const { terminal, err } = screen(options);
      expect(await terminal.confirm("really?", never)).toBe(false);
      expect(err()).toBe("");
    }
  });

  test("ends with Ctrl-C", async () => {
    const stdin = Object.assign(new PassThrough(), { isTTY: true });
    const stderr = Object.assign(new PassThrough(), { isTTY: true });
    const stop = new AbortController();
    const asked = openTerminal({ stdin, stdout: new PassThrough(), stderr }, {}, () => {}).confirm(
      "really?",
      stop.signal,
    );
    stop.abort();
    expect(await asked.catch((error: AegisError) => error.code)).toBe("cancelled");
  });
});

test("when the reader of stdout is gone, that is told once and nothing more is written", async () => {
  const written: string[] = [];
  let gone = 0;
  const stdout = Object.assign(new EventEmitter(), {
    write(chunk: string, done: () => void) {
      written.push(chunk);
      stdout.emit("error", Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
      done();
    },
  }) as unknown as NodeJS.WritableStream;
  const terminal = openTerminal({ stdin: new PassThrough(), stdout, stderr: sink() }, {}, () => {
    gone++;
  });
  await terminal.data("a");
  await terminal.data("b");
  await terminal.flush();
  stdout.emit("error", new Error("again"));
  expect({ written, gone }).toEqual({ written: ["a"], gone: 1 });
});

test("a table aligns its columns by cells, and shows a dash where there is nothing", () => {
  expect(
    table(
      ["NAME", "TAGS"],
      [
        ["web-1", ""],
        ["日本", "a,b"],
      ],
    ),
  ).toBe("NAME   TAGS\nweb-1  -\n日本   a,b\n");
  expect(table(["NAME"], [])).toBe("NAME\n");
});
