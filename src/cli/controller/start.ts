/** `controller start`: serves until it is told to stop. */
import { startController } from "../../controller/run.ts";
import { serviceNotifications } from "../../daemon/service-notify.ts";
import { systemClock } from "../../platform/clock.ts";
import { resolveFrom } from "../../platform/paths.ts";
import { systemProgram } from "../../platform/system-program.ts";
import { command } from "../command.ts";
import { jsonLog } from "../json-log.ts";
import { controllerDir, dataDirFlag, port } from "../options.ts";

export default command({
  example: "aegis controller start --port 8088",
  details: `REST is plain HTTP where the public endpoint is this machine itself, and HTTPS elsewhere. Logs JSON lines to stderr.
With --insecure-http, --tls-cert alone names the certificate of a front end on this machine that ends TLS for us: hosts are
served without TLS too, on loopback, and told which key to expect. Ctrl-C or SIGTERM stops it: runs get 5 s to end.
Traces and logs also go to the OTLP/gRPC collector that otlp in controller.yaml, or else OTEL_EXPORTER_OTLP_ENDPOINT, names.`,
  args: {
    "data-dir": dataDirFlag,
    "grpc-port": {
      type: "string",
      valueHint: "PORT",
      description: "where hosts connect (default: the public endpoint's; 0 = any free one)",
    },
    port: { type: "string", valueHint: "PORT", default: "8088", description: "where REST is served; 0 = any free one" },
    "tls-cert": {
      type: "string",
      valueHint: "FILE",
      description: "a certificate and its issuers (PEM), instead of our own",
    },
    "tls-key": { type: "string", valueHint: "FILE", description: "the certificate's private key (PEM)" },
    "require-strict": { type: "boolean", description: "enroll and admit no host without strict sessions" },
    "insecure-http": { type: "boolean", description: "REST without TLS, on the loopback address only" },
  },
  async run(given) {
    const { args, env, home, stop, terminal } = given;
    const file = (text: string) => resolveFrom(process.cwd(), text, home);
    const dataDir = controllerDir(args["data-dir"], given);
    const log = jsonLog("info");
    const service = await serviceNotifications({
      ...{ stateDir: dataDir, env, log, clock: systemClock, signal: stop },
      run: systemProgram(systemClock),
    });
    if (service) stop.addEventListener("abort", service.stopping, { once: true });
    const controller = await startController({
      dataDir,
      httpPort: port("--port", args.port),
      ...(args["grpc-port"] === undefined ? {} : { grpcPort: port("--grpc-port", args["grpc-port"]) }),
      ...(args["tls-cert"] ? { tlsCert: file(args["tls-cert"]) } : {}),
      ...(args["tls-key"] ? { tlsKey: file(args["tls-key"]) } : {}),
      requireStrict: args["require-strict"],
      insecureHttp: args["insecure-http"],
      env,
      clock: systemClock,
      log,
    });
    service?.ready(`serving hosts on port ${controller.grpcPort} and operators on ${controller.httpUrl}`);
    // Among JSON lines a plain one is for people only.
    if (terminal.interactive)
      terminal.note(`hosts connect on port ${controller.grpcPort}, operators on ${controller.httpUrl}; Ctrl-C stops`);
    const asked = new Promise<void>((resolve) => {
      if (stop.aborted) resolve();
      stop.addEventListener("abort", () => resolve(), { once: true });
    });
    await Promise.race([asked, controller.stopped]);
    await controller.close();
    return undefined;
  },
});
