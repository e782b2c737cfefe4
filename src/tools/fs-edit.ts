/** Changes text inside a file: fs.edit, fs.multi_edit. */
import { z } from "zod";
import { closeDescriptor, readFlags, readFully, statDescriptor } from "../platform/descriptors.ts";
import { quote } from "../policy/quote.ts";
import { notAFile, pathField } from "./fs-read.ts";
import { type Answer, done, fsTool, obstacleOf, refused, type Touch } from "./fs-tool.ts";
import { placeOf } from "./fs-write.ts";
import type { Target } from "./path-guard.ts";
import { replaceFile } from "./replace-file.ts";
import type { Tool } from "./tool.ts";

/** Longest file that is edited. */
const maxEditedBytes = 10 * 1024 * 1024;

const edit = {
  target_content: z.string().min(1).describe("Text that occurs exactly once in the file."),
  replacement_content: z.string().describe("What stands there afterwards."),
};

const path = pathField("The file, which must be UTF-8 text.");
const touches = ({ path }: { path: string }): Touch[] => [{ path, modes: ["read", "write"], follow: true }];

export const fsEdit = (): Tool =>
  fsTool({
    name: "fs.edit",
    description: "Replaces one piece of text in a file, in one step.",
    readOnly: false,
    destructive: true,
    schema: z.strictObject({ path, ...edit }),
    touches,
    async run(args, [target]) {
      const refusal = await applied(args.path, [args], target);
      return refusal ?? done({ status: "success", path: args.path, message: "1 replacement was made" });
    },
  });

export const fsMultiEdit = (): Tool =>
  fsTool({
    name: "fs.multi_edit",
    description:
      "Replaces several pieces of text in a file one after the other; if any does not fit, nothing is written.",
    readOnly: false,
    destructive: true,
    schema: z.strictObject({
      path,
      edits: z
        .array(z.strictObject(edit))
        .min(1)
        .max(1_000)
        .describe("In order; each sees what the one before has made."),
    }),
    touches,
    async run(args, [target]) {
      const refusal = await applied(args.path, args.edits, target);
      return refusal ?? done({ status: "success", path: args.path, edits_applied: args.edits.length });
    },
  });

interface Edit {
  target_content: string;
  replacement_content: string;
}

/** Null when all were made. */
async function applied(path: string, edits: readonly Edit[], target: Target): Promise<Answer | null> {
  const obstacle = obstacleOf(target, path) ?? notAFile(target, path);
  if (obstacle) return obstacle;
  const descriptor = await target.open(readFlags);
  let bytes: Buffer;
  try {
    const { size } = await statDescriptor(descriptor);
    if (size > maxEditedBytes)
      return refused(`${quote(path)} has ${size} bytes, and at most ${maxEditedBytes} can be edited`);
    bytes = await readFully(descriptor, maxEditedBytes + 1, 0);
  } finally {
    await closeDescriptor(descriptor);
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refused(`${quote(path)} is no UTF-8 text`);
  }
  for (const [index, { target_content: wanted, replacement_content: replacement }] of edits.entries()) {
    const at = text.indexOf(wanted);
    const which = edits.length > 1 ? `edit ${index + 1} of ${edits.length}: ` : "";
    if (at < 0)
      return refused(`${which}target_content ${quote(wanted)} does not occur in ${quote(path)}; nothing was written`);
    if (text.includes(wanted, at + 1))
      return refused(
        `${which}target_content ${quote(wanted)} occurs more than once in ${quote(path)}; nothing was written`,
      );
    text = text.slice(0, at) + replacement + text.slice(at + wanted.length);
  }
  await replaceFile(placeOf(target), Buffer.from(text), target, null);
  return null;
}
