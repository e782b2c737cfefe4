/** Shows a run to a person: finished lines scroll by, and below them stands what every host is doing right now. */
import type { FleetEvent } from "../api/events.ts";
import type { Clock } from "../platform/clock.ts";
import { bytesOf, linesView } from "./run-lines.ts";
import { type RunView, summaryWords } from "./run-report.ts";
import { printable, type Terminal } from "./terminal.ts";

/** Hosts that are shown one by one; of the others there is a count. */
const maxRows = 10;
/** The clock in each row moves, and output is not redrawn more often. */
const tickMs = 250;

interface Row {
  name: string;
  since: number;
  /** The last line it printed. */
  last: string;
}

export type GridTerminal = Pick<Terminal, "data" | "passthrough" | "note" | "draw" | "columns">;

export function gridView(terminal: GridTerminal, clock: Clock): RunView {
  const rows = new Map<string, Row>();
  const counts = { ok: 0, err: 0, timed_out: 0, cancelled: 0, edge_disconnected: 0, skipped: 0, not_started: 0 };
  let expected = 0;
  let drawn = 0;
  let drawnAt = Number.NEGATIVE_INFINITY;
  const over = new AbortController();

  function erase(): void {
    if (drawn > 0) terminal.draw(`\u001b[${drawn}A\u001b[J`);
    drawn = 0;
  }

  function draw(): void {
    erase();
    drawnAt = clock.monotonic();
    const running = [...rows.values()];
    const width = Math.max(0, ...running.map(({ name }) => Bun.stringWidth(name)));
    const lines = running.slice(0, maxRows).map(({ name, since, last }) => {
      const seconds = `${Math.floor((clock.monotonic() - since) / 1000)}s`.padStart(5);
      return `${name}${" ".repeat(width - Bun.stringWidth(name))} ${seconds}  ${last}`;
    });
    const waiting = expected - running.length - done();
    const more = running.length > maxRows ? ` (${running.length - maxRows} not shown)` : "";
    lines.push(`${running.length} running${more}, ${waiting} waiting, ${summaryWords(counts)}`);
    terminal.draw(lines.map((line) => `${cut(line, terminal.columns)}\n`).join(""));
    drawn = lines.length;
  }

  const done = () => Object.values(counts).reduce((sum, count) => sum + count, 0) - counts.skipped;

  /** What scrolls goes above the rows. */
  const above = <A extends unknown[], R>(write: (...args: A) => R) => {
    return (...args: A): R => {
      erase();
      return write(...args);
    };
  };
  const lines = linesView({
    data: above(terminal.data),
    passthrough: above(terminal.passthrough),
    note: above(terminal.note),
  });

  async function tick(): Promise<void> {
    while (!over.signal.aborted) {
      await clock.sleep(tickMs, over.signal);
      if (!over.signal.aborted && clock.monotonic() - drawnAt >= tickMs) draw();
    }
  }
  const ticking = tick();

  function note({ event, data }: FleetEvent): void {
    if (event === "started") {
      expected = data.resolved.length;
      counts.skipped = data.skipped.length;
    } else if (event === "node_started") {
      rows.set(data.node_id, { name: printable(data.name), since: clock.monotonic(), last: "" });
    } else if (event === "command_progress") {
      const row = rows.get(data.node_id);
      if (row) row.last = lastLine(Buffer.from(bytesOf(data)).toString("utf8")) || row.last;
    } else if (event === "command_result") {
      rows.delete(data.node_id);
      counts[data.outcome] += 1;
    }
  }

  return {
    async show(event) {
      note(event);
      await lines.show(event);
      if (event.event === "fleet_result") erase();
      // What scrolled has taken the rows away; else they may wait for the next tick.
      else if (drawn === 0 || clock.monotonic() - drawnAt >= tickMs) draw();
    },
    async end() {
      over.abort();
      await ticking;
      erase();
      await lines.end();
    },
  };
}

const lastLine = (text: string): string =>
  printable(
    text
      .trimEnd()
      .split(/[\r\n]/)
      .at(-1) ?? "",
  ).replace(/\t/g, " ");

/** As much of a line as fits without a break. */
function cut(line: string, columns: number): string {
  if (Bun.stringWidth(line) < columns) return line;
  let width = 0;
  let text = "";
  for (const letter of line) {
    width += Bun.stringWidth(letter);
    if (width >= columns - 1) break;
    text += letter;
  }
  return `${text}\u2026`;
}
