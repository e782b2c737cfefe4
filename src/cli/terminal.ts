/** Where results and words go: results to stdout, words to stderr, questions only to a person. */
import { createConsola } from "consola/core";
import { AegisError } from "../errors.ts";
import type { Environment } from "../platform/paths.ts";

export interface Terminal {
  /** A person is here who can be asked, and shown colours and movement. */
  readonly interactive: boolean;
  /** Width of the screen that shows words, in cells. */
  readonly columns: number;
  /** A result. Resolves when more may be written; when nobody reads any more, at once. */
  data(chunk: string | Uint8Array): Promise<void>;
  /** Bytes for stderr as they are: what a remote command wrote there. */
  passthrough(chunk: Uint8Array): Promise<void>;
  note(text: string): void;
  warn(text: string): void;
  /** `error: message`, and its hint on a line of its own. */
  fail(error: AegisError): void;
  /** False unless the answer is yes. Asks nothing, and refuses, where nobody can answer. */
  confirm(question: string, stop: AbortSignal): Promise<boolean>;
  /** A line typed by a person; null at the end of input. */
  question(text: string, stop: AbortSignal): Promise<string | null>;
  /** A line typed without being shown; null where nobody types, and at the end of input. */
  hidden(text: string, stop: AbortSignal): Promise<string | null>;
  /** Resolves once everything that was said has left this process. */
  flush(): Promise<void>;
  /** Words that replace themselves; only for a person. */
  draw(text: string): void;
}

export interface Streams {
  stdin: NodeJS.ReadableStream & { isTTY?: boolean; setRawMode?(raw: boolean): unknown };
  stdout: NodeJS.WritableStream & { isTTY?: boolean };
  stderr: NodeJS.WritableStream & { isTTY?: boolean; columns?: number };
}

/** `onGone` is called once when whoever read stdout is gone. */
export function openTerminal(streams: Streams, env: Environment, onGone: () => void): Terminal {
  // Making stdin takes time, and most commands never read it.
  const { stdout, stderr } = streams;
  const plain = Boolean(env.NO_COLOR) || env.TERM === "dumb";
  const interactive = Boolean(stderr.isTTY && streams.stdin.isTTY) && !plain;
  const coloured = Boolean(stderr.isTTY) && !plain;
  let gone = false;
  stdout.on("error", () => {
    if (!gone) onGone();
    gone = true;
  });
  // Nobody reads our words: there is nowhere left to say so.
  stderr.on("error", () => {});

  const write = (stream: NodeJS.WritableStream, chunk: string | Uint8Array) =>
    new Promise<void>((resolve) => {
      stream.write(chunk, () => resolve());
    });
  const paint = (code: number, text: string) => (coloured ? `\u001b[${code}m${text}\u001b[0m` : text);
  const prefixes: Record<string, string> = { warn: `${paint(33, "warning:")} `, error: `${paint(31, "error:")} ` };
  const words = createConsola({
    level: 3,
    throttle: 0,
    reporters: [
      { log: ({ type, args }) => void stderr.write(`${prefixes[type] ?? ""}${printable(args.join(" "))}\n`) },
    ],
  });

  const terminal: Terminal = {
    interactive,
    get columns() {
      return stderr.columns || 80;
    },
    data: (chunk) => (gone ? Promise.resolve() : write(stdout, chunk)),
    passthrough: (chunk) => write(stderr, chunk),
    note: (text) => words.info(text),
    warn: (text) => words.warn(text),
    fail(error) {
      words.error(error.message);
      if (error.hint) words.info(`${paint(36, "hint:")} ${error.hint}`);
    },
    async confirm(question, stop) {
      if (!interactive) return false;
      const answer = await terminal.question(`${question} [y/N] `, stop);
      return /^\s*y(?:es)?\s*$/i.test(answer ?? "");
    },
    async question(text, stop) {
      stderr.write(printable(text));
      return await readLine(streams.stdin, stop);
    },
    async hidden(text, stop) {
      const { stdin } = streams;
      if (!stdin.isTTY || !stdin.setRawMode) return null;
      // In raw mode the terminal shows nothing of what is typed, from before anybody can know that he should type.
      stdin.setRawMode(true);
      stderr.write(printable(text));
      try {
        return await readLine(stdin, stop);
      } finally {
        stdin.setRawMode(false);
        stderr.write("\n");
      }
    },
    async flush() {
      await Promise.all([gone ? null : write(stdout, ""), write(stderr, "")]);
    },
    draw(text) {
      if (interactive) stderr.write(text);
    },
  };
  return terminal;
}

/** Up to the end of the line, which a person ends with Enter; null when input ends before anything came. */
function readLine(stdin: NodeJS.ReadableStream, stop: AbortSignal): Promise<string | null> {
  const cancelled = () => new AegisError("cancelled", "cancelled before anything was done");
  return new Promise<string | null>((resolve, reject) => {
    if (stop.aborted) return reject(cancelled());
    let line = "";
    const over = (act: () => void) => {
      stdin.off("data", onData);
      stdin.off("end", onEnd);
      stop.removeEventListener("abort", onStop);
      stdin.pause();
      act();
    };
    const onStop = () => over(() => reject(cancelled()));
    const onEnd = () => over(() => resolve(line || null));
    const onData = (chunk: Buffer | string) => {
      const letters = [...chunk.toString("utf8")];
      for (const [at, letter] of letters.entries()) {
        if (letter === "\r" || letter === "\n") {
          const rest = letters.slice(at + 1).join("");
          return over(() => {
            // Typed ahead: the answer to the next question.
            if (rest !== "") stdin.unshift(Buffer.from(rest));
            resolve(line);
          });
        }
        // In raw mode these are letters: Ctrl-C, Ctrl-D, and the one that takes back.
        if (letter === "\u0003") return onStop();
        if (letter === "\u0004") return onEnd();
        line = letter === "\u007f" || letter === "\b" ? [...line].slice(0, -1).join("") : line + letter;
      }
    };
    stdin.on("data", onData);
    stdin.once("end", onEnd);
    stop.addEventListener("abort", onStop, { once: true });
    stdin.resume();
  });
}

/** Without the characters that move a cursor or change a screen: names and messages come from elsewhere. */
export const printable = (text: string): string => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "\ufffd");

/** Columns under their headings; an empty cell is a dash. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [headings, ...rows].map((row) => row.map((cell) => printable(cell).replace(/[\t\n]/g, " ") || "-"));
  const widths = headings.map((_, column) => Math.max(...cells.map((row) => Bun.stringWidth(row[column] ?? ""))));
  const pad = (cell: string, width: number) => cell + " ".repeat(width - Bun.stringWidth(cell));
  return cells
    .map(
      (row) =>
        `${row
          .map((cell, column) => pad(cell, widths[column] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

/** Names and values, one pair a line. */
export function facts(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${printable(value) || "-"}\n`).join("");
}
