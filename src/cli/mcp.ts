/** `mcp`: lets a client that starts its servers as programs reach the controller's /mcp, with the operator's profile. */
import { authorizedFetch } from "../api/http-transport.ts";
import { loadProfile } from "../identity/profiles.ts";
import { command } from "./command.ts";
import { bridge } from "./mcp-bridge.ts";

export default command({
  example: "aegis mcp",
  details: `Speaks MCP on stdin and stdout until stdin ends. What it can do is what the operator's token may: aegis login URL, or
AEGIS_CONTROLLER and AEGIS_USER_TOKEN in the client's settings. Clients that speak HTTP use the controller's /mcp themselves.`,
  args: {},
  async run(given) {
    const { stop, terminal } = given;
    const { url, token, caPem } = await loadProfile(given);
    const endpoint = authorizedFetch({ url, token, caPem }, "/mcp");
    await bridge(endpoint, { stdin: process.stdin, stdout: process.stdout, stop, warn: (text) => terminal.warn(text) });
    return undefined;
  },
});
