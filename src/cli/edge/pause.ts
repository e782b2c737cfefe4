/** `edge pause`: this host refuses every call until `edge resume`. */
import { pause } from "../../daemon/pause.ts";
import { command } from "../command.ts";
import { edgeDir, stateDirFlag } from "../options.ts";
import { enrolledDir } from "./enrolled.ts";

export default command({
  example: "aegis edge pause",
  details: "From the next call on; calls that run go on. It holds across restarts, and no controller can lift it.",
  args: { "state-dir": stateDirFlag },
  async run(given) {
    const changed = await pause(await enrolledDir(edgeDir(given.args["state-dir"], given)));
    given.terminal.note(changed ? "paused: every call is refused until aegis edge resume" : "it was paused already");
    return undefined;
  },
});
