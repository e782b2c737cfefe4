/** Finds files by name and lines by content below a folder: fs.glob, fs.grep. */
import { basename } from "node:path";
import { z } from "zod";
import type { Clock } from "../platform/clock.ts";
import { closeDescriptor, readFlags, readFully, statDescriptor } from "../platform/descriptors.ts";
import { quote } from "../policy/quote.ts";
import { pathField } from "./fs-read.ts";
import { done, fsTool, obstacleOf, refused } from "./fs-tool.ts";
import { type Entry, type Skipped, walk } from "./fs-walk.ts";
import { type Glob, parseGlob } from "./glob-match.ts";
import { parsePattern, slices } from "./line-search.ts";
import type { Target } from "./path-guard.ts";
import type { Tool, ToolContext } from "./tool.ts";

/** Most matches in one answer. */
const maxMatches = 1_000;
/** A search answers with what it has after so many seconds, unless it is asked for less. */
const maxSearchSecs = 20;
/** What of a longer file is searched, in bytes. */
export const maxSearchedBytes = 10 * 1024 * 1024;
/** Longest line, or part of one, in an answer. In characters. */
const maxShownChars = 500;
/** Searched without a pause. In characters. */
const sliceChars = 128 * 1024;
/** All lines of an answer together, in characters. */
const maxShownInAll = 256 * 1024;

const globWords =
  "`*` any characters within a name, `?` one, `**` any number of folders, `[a-z]` one of a set, `{a,b}` either. Without `/` it is compared with names, beginning with `/` with whole paths, else with paths below the folder.";

const most = z.int().min(1).max(maxMatches).optional().describe(`Most matches in the answer. Default ${maxMatches}.`);
const limit = z
  .number()
  .positive()
  .max(maxSearchSecs)
  .optional()
  .describe(`Answer with what was found after so many seconds. Default ${maxSearchSecs}.`);

export const fsGlob = ({ clock }: { clock: Clock }): Tool =>
  fsTool({
    name: "fs.glob",
    description: "Finds files and folders by name below a folder. Links are named and not followed.",
    readOnly: true,
    destructive: false,
    schema: z.strictObject({
      pattern: z.string().min(1).describe(globWords),
      path: pathField("The folder to look below."),
      max_matches: most,
      timeout_secs: limit,
    }),
    touches: ({ path }) => [{ path, modes: ["read"], follow: true }],
    async run(
      { pattern, path, max_matches: wanted = maxMatches, timeout_secs: secs = maxSearchSecs },
      [target],
      context,
    ) {
      const glob = parseGlob(pattern);
      if (glob.kind === "refused") return refused(`pattern ${quote(pattern)} cannot be used: ${glob.reason}`);
      const obstacle = obstacleOf(target, path);
      if (obstacle) return obstacle;
      if (target.kind !== "directory") return refused(`${quote(path)} is no directory`);
      const search = searchOf(clock, secs);
      const matches: string[] = [];
      for await (const entry of walk(target, context, search.skipped)) {
        if (glob.matches(entry)) {
          if (matches.length === wanted) {
            search.endedBy ??= "max_matches";
            break;
          }
          matches.push(entry.path);
        }
        if (await search.isOver()) break;
      }
      return done({ status: "success", matches, count: matches.length, ...search.told() });
    },
  });

export const fsGrep = ({ clock }: { clock: Clock }): Tool =>
  fsTool({
    name: "fs.grep",
    description:
      "Finds the lines that match a pattern in a file, or in all text files below a folder. Links are not followed.",
    readOnly: true,
    destructive: false,
    schema: z.strictObject({
      pattern: z.string().min(1).describe("A regular expression in RE2 syntax, matched line by line."),
      path: pathField("The file or folder to search."),
      include: z.string().min(1).optional().describe(`Only files whose name matches. ${globWords}`),
      ignore_case: z.boolean().optional().describe("Default false."),
      max_matches: most,
      timeout_secs: limit,
    }),
    touches: ({ path }) => [{ path, modes: ["read"], follow: true }],
    async run(args, [target], context) {
      const { path, max_matches: wanted = maxMatches, timeout_secs: secs = maxSearchSecs } = args;
      const parsed = await parsePattern(args.pattern, { ignoreCase: args.ignore_case ?? false });
      if (parsed.kind === "refused") return refused(`pattern ${quote(args.pattern)} cannot be used: ${parsed.reason}`);
      const include: Glob | null = args.include === undefined ? null : parseGlob(args.include);
      if (include?.kind === "refused") return refused(`include cannot be used: ${include.reason}`);
      const obstacle = obstacleOf(target, path);
      if (obstacle) return obstacle;
      const search = searchOf(clock, secs);
      const matches: Array<{ file: string; line_number: number; line: string }> = [];
      let shown = 0;
      let files = 0;
      let cut = 0;
      for await (const entry of filesOf(target, context, search.skipped)) {
        if (include && !include.matches(entry)) continue;
        const text = await textOf(entry, search.skipped);
        if (text === null) continue;
        files++;
        if (text.isCut) cut++;
        for (const slice of slices(text.text, sliceChars)) {
          parsed.search(slice.text, (line, number) => {
            if (matches.length === wanted || shown >= maxShownInAll) {
              search.endedBy ??= "max_matches";
              return false;
            }
            const trimmed = line.trim().slice(0, maxShownChars);
            matches.push({ file: entry.path, line_number: slice.firstLine + number - 1, line: trimmed });
            shown += trimmed.length;
            return true;
          });
          if (await search.isOver()) break;
        }
        if (await search.isOver()) break;
      }
      return done({
        status: "success",
        ...{ matches, count: matches.length, files_searched: files, files_cut: cut },
        ...search.told(),
      });
    },
  });

/** Bounds a search in time, and lets the daemon's other work go on meanwhile. */
function searchOf(clock: Clock, secs: number) {
  const began = clock.monotonic();
  let breathedAt = began;
  const skipped: Skipped & { notText: number } = { denied: 0, unreadable: 0, notText: 0 };
  const search = {
    skipped,
    endedBy: null as "max_matches" | "timeout_secs" | null,
    async isOver(): Promise<boolean> {
      const now = clock.monotonic();
      if (now - began > secs * 1000) search.endedBy ??= "timeout_secs";
      if (now - breathedAt > 10) {
        await new Promise((resolve) => setImmediate(resolve));
        breathedAt = clock.monotonic();
      }
      return search.endedBy !== null;
    },
    told: () => ({
      truncated: search.endedBy !== null,
      ...(search.endedBy && { ended_by: search.endedBy }),
      skipped: { denied: skipped.denied, unreadable: skipped.unreadable, not_text: skipped.notText },
    }),
  };
  return search;
}

async function* filesOf(target: Target, context: ToolContext, skipped: Skipped): AsyncGenerator<Entry> {
  if (target.kind === "directory") {
    for await (const entry of walk(target, context, skipped)) if (entry.kind === "file") yield entry;
  } else if (target.kind === "file") {
    const name = basename(target.path);
    yield { path: target.path, relative: name, name, kind: "file", open: () => target.open(readFlags) };
  } else skipped.unreadable++;
}

async function textOf(
  entry: Entry,
  skipped: Skipped & { notText: number },
): Promise<{ text: string; isCut: boolean } | null> {
  const descriptor = await entry.open().catch(() => null);
  if (descriptor === null) {
    skipped.unreadable++;
    return null;
  }
  try {
    const { size } = await statDescriptor(descriptor);
    const bytes = await readFully(descriptor, Math.min(Math.max(size, 64 * 1024), maxSearchedBytes), 0);
    const isCut = size > bytes.length;
    if (bytes.includes(0)) throw new TypeError("no text");
    return { text: new TextDecoder("utf-8", { fatal: !isCut }).decode(bytes), isCut };
  } catch (error) {
    if (error instanceof TypeError) skipped.notText++;
    else skipped.unreadable++;
    return null;
  } finally {
    await closeDescriptor(descriptor);
  }
}
