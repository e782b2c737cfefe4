/** `edge token issue`: a one-time token that lets one machine in. */

import { command, many } from "../command.ts";
import { connect } from "../connection.ts";
import { duration, outputFlag, printResult } from "../options.ts";

export default command({
  example: "aegis edge token issue --name web-1 --tag prod",
  details: "Whoever holds the token can enroll one host until it expires. Hand it over where others do not read along.",
  args: {
    name: {
      type: "string",
      valueHint: "NAME",
      description: "what the host is called when it brings no name of its own",
    },
    ttl: { type: "string", valueHint: "DURATION", default: "15m", description: "how long it is good for, 15m at most" },
    tag: many("TAG", "a tag the host starts with"),
    for: { type: "string", valueHint: "NODE", description: "the known host that this token enrolls again" },
    compat: { type: "boolean", description: "for a daemon without strict sessions, such as the Rust one" },
    output: outputFlag,
  },
  async run(given) {
    const { args, every, terminal } = given;
    const client = await connect(given);
    const issued = await client.issueEnrollmentToken({
      ttl_seconds: Math.floor(duration("--ttl", args.ttl) / 1000),
      tags: every("tag"),
      compat: args.compat,
      ...(args.name === undefined ? {} : { name: args.name }),
      ...(args.for === undefined ? {} : { for_node: args.for }),
    });
    await printResult(given, args.output, issued, () => `${issued.command_hint}\n`);
    terminal.note(`paste it on the host; good once, until ${issued.expires_at}`);
    return undefined;
  },
});
