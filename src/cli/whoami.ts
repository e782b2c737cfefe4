/** `whoami`: who the controller takes this operator for. */
import { loadProfile } from "../identity/profiles.ts";
import { command } from "./command.ts";
import { connect } from "./connection.ts";
import { outputFlag, printResult } from "./options.ts";
import { facts } from "./terminal.ts";

export default command({
  example: "aegis whoami",
  args: { output: outputFlag },
  async run(given) {
    const { name, url } = await loadProfile(given);
    const me = await (await connect(given)).whoami();
    await printResult(given, given.args.output, { profile: name, url, ...me }, () =>
      facts([
        ["profile", name],
        ["controller", url],
        ["name", me.principal],
        ["tenant", me.tenant_id],
        ["scopes", me.scopes.join(" ")],
        ["contexts", me.contexts.join(" ")],
        ["expires", me.expires_at ?? "never"],
      ]),
    );
    return undefined;
  },
});
