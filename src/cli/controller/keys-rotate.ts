/** `controller keys rotate`: the controller proves itself with a new key from now on. */
import { rotateKey, rotateRoot } from "../../controller/key-rotation.ts";
import { rotateTls } from "../../controller/tls-pins.ts";
import { AegisError } from "../../errors.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag } from "../options.ts";
import { withStore } from "./beside.ts";
import { keyChangeOptions, offlineRootFlag, tellChange } from "./keys-flags.ts";
import { tellTlsChange, withHost } from "./keys-tls.ts";

const kinds = ["command", "token", "root", "tls"] as const;

export default command({
  example: "aegis controller keys rotate command",
  details: `command signs what goes to hosts, token signs their tokens and callers', root vouches for both. A new command or token key
is published first and used once every connected host knows it; hosts that are away follow when they come back, however
long that is. A new root is signed by the old one too; enrollment tokens that are not used yet are void then. tls is the
CA and certificate of our own making: published too, and used once every host has heard of it, after 60 days at the latest.
It renews itself 90 days before it ends.`,
  args: {
    kind: {
      type: "positional",
      valueHint: "KIND",
      required: false,
      description: "command (default), token, root or tls",
    },
    "data-dir": dataDirFlag,
    "offline-root": offlineRootFlag,
    output: outputFlag,
  },
  async run(given) {
    const { args } = given;
    const dataDir = controllerDir(args["data-dir"], given);
    const wanted: string = args.kind ?? "command";
    const kind = kinds.find((one) => one === wanted);
    if (!kind)
      throw new AegisError("usage", `${JSON.stringify(wanted)} is none of the controller's keys`, {
        hint: `one of ${kinds.join(", ")}`,
      });
    await withStore(dataDir, async (store) => {
      const options = keyChangeOptions(store, dataDir, args["offline-root"], given);
      if (kind === "tls")
        return await tellTlsChange(given, args.output, store, await rotateTls(await withHost(options)));
      const change = kind === "root" ? await rotateRoot(options) : await rotateKey(kind, options);
      await tellChange(given, args.output, store, change);
    });
    return undefined;
  },
});
