/** `logout`: forgets the current profile on this machine. The token itself stays valid until it is revoked or expires. */
import { AegisError } from "../errors.ts";
import { listProfiles, removeProfile } from "../identity/profiles.ts";
import { command } from "./command.ts";

export default command({
  example: "aegis logout",
  details: "Forgets the token here; whoever copied it can still use it. aegis controller token revoke ends it.",
  args: {},
  async run(given) {
    const { terminal, env } = given;
    const { current } = await listProfiles(given);
    if (current !== null && (await removeProfile(given, current))) {
      const { current: next } = await listProfiles(given);
      terminal.note(`forgot profile ${current}${next === null ? "" : `; ${next} is the current one now`}`);
    } else terminal.note("no profile is stored here");
    if (env.AEGIS_USER_TOKEN)
      throw new AegisError("conflict", "AEGIS_USER_TOKEN is still set in this shell and goes on working", {
        hint: "unset AEGIS_USER_TOKEN AEGIS_CONTROLLER",
      });
    return undefined;
  },
});
