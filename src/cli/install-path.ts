/** `install path`: makes the folder of this executable part of the user's PATH; the installer for Windows calls it. */
import { dirname } from "node:path";
import { AegisError } from "../errors.ts";
import { systemClock } from "../platform/clock.ts";
import { systemProgram } from "../platform/system-program.ts";
import { changeUserPath } from "../platform/user-path.ts";
import { command } from "./command.ts";

export default command({
  example: "aegis install path",
  details:
    "On Windows it changes the user's Path in the registry, which the next program sees. Elsewhere a shell's own files decide, so it prints the line for them.",
  args: {
    change: {
      type: "positional",
      required: false,
      valueHint: "add|remove",
      description: "remove takes the folder out again (default add)",
    },
  },
  async run({ args, terminal }) {
    const change = args.change ?? "add";
    if (change !== "add" && change !== "remove")
      throw new AegisError("usage", `${JSON.stringify(change)} is neither add nor remove`);
    const folder = dirname(process.execPath);
    if (process.platform === "win32") {
      const changed = await changeUserPath(systemProgram(systemClock), folder, change);
      terminal.note(
        changed
          ? `${folder} was ${change === "remove" ? "taken out of" : "put first in"} your Path`
          : `your Path needs no change for ${folder}`,
      );
      return 0;
    }
    if (change === "remove")
      throw new AegisError("usage", "remove is for Windows; here take the line out of your shell's own file");
    await terminal.data(`export PATH="${folder}:$PATH"\n`);
    return 0;
  },
});
