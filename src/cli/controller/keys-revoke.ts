/** `controller keys revoke`: nothing that a key signs counts any more. */
import { revokeKey } from "../../controller/key-rotation.ts";
import { revokePin, revokeTls } from "../../controller/tls-pins.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag } from "../options.ts";
import { withStore } from "./beside.ts";
import { keyChangeOptions, offlineRootFlag, tellChange } from "./keys-flags.ts";
import { tellTlsChange, withHost } from "./keys-tls.ts";

export default command({
  example: "aegis controller keys revoke command",
  details: `At once, on every host that is connected; the others learn of it with their next Hello. When the key is the one that signs
now, another takes its place in the same step. Hosts whose token a revoked key signed get a new one by their own key. tls is
the certificate's: a host that is not connected while its key is revoked cannot come back by itself.`,
  args: {
    key: {
      type: "positional",
      valueHint: "KEY",
      description: "command, token or tls for the one in use, or the beginning of a fingerprint as keys ls shows it",
    },
    "data-dir": dataDirFlag,
    "offline-root": offlineRootFlag,
    output: outputFlag,
  },
  async run(given) {
    const { args } = given;
    const dataDir = controllerDir(args["data-dir"], given);
    await withStore(dataDir, async (store) => {
      const options = keyChangeOptions(store, dataDir, args["offline-root"], given);
      const tls = await withHost(options);
      const gone = args.key === "tls" ? await revokeTls(tls) : await revokePin(args.key, tls);
      if (gone) return await tellTlsChange(given, args.output, store, gone);
      await tellChange(given, args.output, store, await revokeKey(args.key, options));
    });
    return undefined;
  },
});
