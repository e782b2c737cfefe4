/** `edge resume`: lifts `edge pause`. */
import { resume } from "../../daemon/pause.ts";
import { command } from "../command.ts";
import { edgeDir, stateDirFlag } from "../options.ts";
import { enrolledDir } from "./enrolled.ts";

export default command({
  example: "aegis edge resume",
  args: { "state-dir": stateDirFlag },
  async run(given) {
    const changed = await resume(await enrolledDir(edgeDir(given.args["state-dir"], given)));
    given.terminal.note(changed ? "calls are taken again, as the policy allows" : "it was not paused");
    return undefined;
  },
});
