/** `controller ca`: the certificate that clients of the API must trust, and the fingerprint by which they know it. */
import { X509Certificate } from "node:crypto";
import { loadControllerConfig } from "../../config/controller.ts";
import { loadTls } from "../../controller/tls.ts";
import { AegisError } from "../../errors.ts";
import { command } from "../command.ts";
import { controllerDir, dataDirFlag, outputFlag, printResult } from "../options.ts";
import { fingerprintOf } from "../server-identity.ts";

export default command({
  example: "aegis controller ca > aegis-ca.pem",
  details:
    "Prints the certificate; its fingerprint goes to stderr. Operators compare it: aegis login URL --fingerprint SHA256:...",
  args: { "data-dir": dataDirFlag, output: outputFlag },
  async run(given) {
    const { args, terminal } = given;
    const dataDir = controllerDir(args["data-dir"], given);
    await loadControllerConfig(dataDir);
    const { caPem } = await loadTls(dataDir);
    if (caPem === null) throw new AegisError("not_found", "this controller has no authority of its own");
    const fingerprint = fingerprintOf(new X509Certificate(caPem));
    await printResult(given, args.output, { ca_pem: caPem, fingerprint }, () => caPem);
    terminal.note(`fingerprint ${fingerprint}`);
    return undefined;
  },
});
