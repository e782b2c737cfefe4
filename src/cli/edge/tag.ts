/** `edge tag add` and `edge tag rm`: flat words by which operators select hosts. */
import { command } from "../command.ts";
import { connect } from "../connection.ts";
import { outputFlag, printResult } from "../options.ts";

const tagCommand = (verb: "add" | "rm") =>
  command({
    example: `aegis edge tag ${verb} web-1 prod`,
    args: {
      node: { type: "positional", valueHint: "NODE", description: "its name, id or the first 6 characters of its id" },
      tags: { type: "positional", valueHint: "TAG...", description: "one or more words" },
      output: outputFlag,
    },
    async run(given) {
      const tags = given.every("tags");
      const change = verb === "add" ? { add: tags } : { remove: tags };
      const host = await (await connect(given)).changeTags(given.args.node, change);
      await printResult(given, given.args.output, host, () => `${host.name}: ${host.tags.join(" ") || "no tags"}\n`);
      return undefined;
    },
  });

export const add = { default: tagCommand("add") };
export const rm = { default: tagCommand("rm") };
