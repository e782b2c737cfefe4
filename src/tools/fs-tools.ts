/** All tools on files, for whoever puts a host's tools together. */
import type { Clock } from "../platform/clock.ts";
import { fsEdit, fsMultiEdit } from "./fs-edit.ts";
import { fsList, fsRead, fsStat } from "./fs-read.ts";
import { fsGlob, fsGrep } from "./fs-search.ts";
import { fsCreateDir, fsDelete, fsMove } from "./fs-tree.ts";
import { fsWrite } from "./fs-write.ts";
import type { Tool } from "./tool.ts";

export const fsTools = ({ clock }: { clock: Clock }): Tool[] => [
  ...[fsRead(), fsList(), fsStat(), fsGrep({ clock }), fsGlob({ clock })],
  ...[fsWrite(), fsEdit(), fsMultiEdit(), fsCreateDir(), fsDelete(), fsMove()],
];
