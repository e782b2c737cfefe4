/** `controller init`: a controller's keys, database and first operator. */
import { initController } from "../../controller/init.ts";
import { saveProfile } from "../../identity/profiles.ts";
import { systemClock } from "../../platform/clock.ts";
import { resolveFrom } from "../../platform/paths.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag, printResult } from "../options.ts";
import { facts } from "../terminal.ts";

export default command({
  example: "aegis controller init --public-endpoint controller.example:50056",
  details: "Refuses a directory that holds anything. The first operator's profile goes to ~/.aegis/credentials (0600).",
  args: {
    "data-dir": dataDirFlag,
    "public-endpoint": {
      type: "string",
      valueHint: "HOST:PORT",
      default: "localhost:50056",
      description: "where hosts will dial; it stands in every enrollment token",
    },
    tenant: { type: "string", valueHint: "NAME", default: "default", description: "the first tenant" },
    "offline-root": {
      type: "string",
      valueHint: "FILE",
      description: "write the root key there, to be kept off this machine, instead of into the data",
    },
    output: outputFlag,
  },
  async run(given) {
    const { args, env, home, terminal } = given;
    const dataDir = controllerDir(args["data-dir"], given);
    const made = await initController({
      dataDir,
      publicEndpoint: args["public-endpoint"],
      tenantId: args.tenant,
      clock: systemClock,
      ...(args["offline-root"] ? { offlineRoot: resolveFrom(process.cwd(), args["offline-root"], home) } : {}),
    });
    const profilePath = await saveProfile(
      { env, home },
      {
        name: "default",
        url: made.httpUrl,
        token: made.operatorToken,
        caPem: made.caPem,
        tenantId: args.tenant,
        fingerprint: made.rootFingerprint,
      },
    );
    const shown = {
      controller_id: made.controllerId,
      data_dir: dataDir,
      public_endpoint: args["public-endpoint"],
      url: made.httpUrl,
      tenant_id: args.tenant,
      root_fingerprint: made.rootFingerprint,
      profile: profilePath,
    };
    await printResult(given, args.output, shown, () =>
      facts([
        ["controller", shown.controller_id],
        ["data", shown.data_dir],
        ["hosts dial", shown.public_endpoint],
        ["operators use", shown.url],
        ["tenant", shown.tenant_id],
        ["root key", shown.root_fingerprint],
        ["profile", shown.profile],
      ]),
    );
    const flag = args["data-dir"] ? ` --data-dir ${dataDir}` : "";
    terminal.note(`next: aegis controller start${flag}`);
    return undefined;
  },
});
