/** `edge cp`: one file to a host or from it, in pieces, through the host's own file tools and their policy. */
import { AegisError } from "../../errors.ts";
import { resolveFrom } from "../../platform/paths.ts";
import { command } from "../command.ts";
import { connectForRun } from "../connection.ts";
import { hostCalls } from "./cp-call.ts";
import { readPlace } from "./cp-place.ts";
import { type Copied, download, upload } from "./cp-transfer.ts";

export default command({
  example: "aegis edge cp report.pdf web-1:/var/tmp/",
  details: `One of the two is HOST:PATH with an absolute path, or CONTEXT@HOST:PATH for another security context than default. The host's
policy must allow fs.stat and fs.read, or fs.stat, fs.write and fs.move. What was interrupted goes on where it stopped when
the same command is given again, if both ends still have what was copied; the checksum of the whole is compared at the end.`,
  args: {
    source: { type: "positional", valueHint: "SRC", description: "a file here, or HOST:PATH" },
    destination: { type: "positional", valueHint: "DST", description: "a file or an existing folder; or HOST:PATH" },
  },
  async run(given) {
    const { args, home, terminal } = given;
    const [from, to] = [readPlace(args.source), readPlace(args.destination)];
    const progress = (done: number, size: number) =>
      terminal.draw(`\r${size === 0 ? 100 : Math.floor((100 * done) / size)}%  ${done} of ${size} bytes\u001b[K`);
    const here = (path: string) => resolveFrom(process.cwd(), path, home);
    const client = await connectForRun(given);
    let copied: Copied;
    if (from.kind === "there" && to.kind === "here")
      copied = await download(hostCalls(client, from, given), from.path, here(to.path), progress);
    else if (from.kind === "here" && to.kind === "there")
      copied = await upload(hostCalls(client, to, given), here(from.path), to.path, progress);
    else
      throw new AegisError("usage", "one of SRC and DST must be on a host, and the other one here", {
        hint: "aegis edge cp FILE web-1:/var/tmp/",
      });
    terminal.draw("\r\u001b[K");
    const resumed = copied.resumedAt > 0 ? `, ${copied.resumedAt} of them from before` : "";
    terminal.note(`${copied.path}: ${copied.bytes} bytes${resumed}, sha256 ${copied.sha256}`);
    return undefined;
  },
});
