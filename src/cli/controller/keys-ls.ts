/** `controller keys ls`: the controller's keys, what each is for, and which hosts do not know the newest ones yet. */
import { newestKeyset } from "../../controller/keys.ts";
import { loadTls, nextTls } from "../../controller/tls.ts";
import { fingerprint } from "../../envelope/public-key.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag, printResult } from "../options.ts";
import { pinShown } from "../server-identity.ts";
import { facts, table } from "../terminal.ts";
import { withStore } from "./beside.ts";

/** Names of hosts that a person is shown. */
const namesShown = 10;

export default command({
  example: "aegis controller keys ls",
  details:
    "Hosts that are behind learn of newer keys when they connect. The root key's fingerprint is what enroll shows.",
  args: { "data-dir": dataDirFlag, output: outputFlag },
  async run(given) {
    const { args } = given;
    const dataDir = controllerDir(args["data-dir"], given);
    const shown = await withStore(dataDir, async (store) => {
      const keyset = await newestKeyset(store);
      const planned = await store.plannedKeyset();
      const [tls, follows] = [await loadTls(dataDir), await nextTls(dataDir)];
      const stateOf = (pin: string) =>
        tls.pins.includes(pin) ? "active" : follows?.pins.includes(pin) ? "next" : "published";
      const behind = await store.nodesBehind(keyset.version);
      return {
        root_fingerprint: fingerprint(keyset.rootKey),
        version: keyset.version,
        created_at: new Date(keyset.createdMs).toISOString(),
        planned_version: planned?.version ?? null,
        keys: [
          ...keyset.keys.map(({ key, use, state }) => ({ use, state, fingerprint: fingerprint(key) })),
          ...keyset.tlsPins.map((pin) => ({ use: "tls", state: stateOf(pin), fingerprint: pinShown(pin) })),
        ],
        hosts_behind: behind.map(({ nodeId, hostName, displayName }) => ({
          node_id: nodeId,
          name: displayName ?? hostName,
        })),
      };
    });
    await printResult(given, args.output, shown, () => {
      const names = shown.hosts_behind.slice(0, namesShown).map(({ name }) => name);
      const more = shown.hosts_behind.length - names.length;
      const behind = [...names, ...(more > 0 ? [`${more} more`] : [])].join(", ");
      const about = facts([
        ["root key", shown.root_fingerprint],
        ["keyset", `version ${shown.version}, of ${shown.created_at}`],
        ["to follow", shown.planned_version === null ? "nothing" : `version ${shown.planned_version}`],
        ["hosts behind", behind === "" ? "none" : behind],
      ]);
      const keys = shown.keys.map(({ use, state, fingerprint }) => [use, state, fingerprint]);
      return `${about}\n${table(["USE", "STATE", "FINGERPRINT"], keys)}`;
    });
    return undefined;
  },
});
