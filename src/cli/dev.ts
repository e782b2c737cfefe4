/** `dev`: a controller and one enrolled edge in this process, one call through all of it, and how to make the next. */
import { mkdtemp, rm } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { type ApiClient, createApiClient } from "../api/client.ts";
import { controllerConfigPath, loadControllerConfig } from "../config/controller.ts";
import { readEndpoint } from "../controller/endpoint.ts";
import { initController } from "../controller/init.ts";
import { type RunningController, startController } from "../controller/run.ts";
import { enroll } from "../daemon/enroll.ts";
import { planEnrollment } from "../daemon/enroll-plan.ts";
import { runDaemon } from "../daemon/run.ts";
import { AegisError } from "../errors.ts";
import { loadProfile, saveProfile } from "../identity/profiles.ts";
import { systemClock as clock } from "../platform/clock.ts";
import { freePort } from "../platform/free-port.ts";
import { type Secret, silentLog } from "../platform/log.ts";
import { defaultControllerDir, defaultEdgeDir, type Environment, resolveFrom } from "../platform/paths.ts";
import { makeDirectory } from "../platform/private-file.ts";
import { readTextFile } from "../platform/text-file.ts";
import { untilAbort } from "../platform/until-abort.ts";
import { command, type Surroundings } from "./command.ts";
import { jsonLog } from "./json-log.ts";
import { port } from "./options.ts";
import { bareView } from "./run-bare.ts";
import { exitOf, followRun, inWords } from "./run-report.ts";

const hostName = "dev";
const connectTimeoutMs = 30_000;
/** A command that every default policy allows. */
const smoke = ["uname", "-sr"] as const;

export default command({
  example: "aegis dev --once",
  details: `Everything stays on this machine's loopback address and below one directory, which is removed in the end unless
--data-dir names it. The host has the policy of a fresh enrollment.`,
  args: {
    "data-dir": {
      type: "string",
      valueHint: "DIR",
      description: "keep everything there, and go on from it (default: a temporary one)",
    },
    once: { type: "boolean", description: "end after the first call" },
    port: { type: "string", valueHint: "PORT", default: "0", description: "where REST is served; 0 = any free one" },
    "grpc-port": { type: "string", valueHint: "PORT", description: "where the host connects (default: any free one)" },
  },
  async run(given) {
    const { args, home } = given;
    const kept = args["data-dir"];
    const dir =
      kept === undefined ? await mkdtemp(join(tmpdir(), "aegis-dev-")) : resolveFrom(process.cwd(), kept, home);
    const grpcPort = args["grpc-port"] === undefined ? 0 : port("--grpc-port", args["grpc-port"]);
    const options = { dir, kept: kept !== undefined, httpPort: port("--port", args.port), grpcPort, once: args.once };
    try {
      await makeDirectory(dir);
      return await play(options, given);
    } finally {
      if (kept === undefined) await rm(dir, { recursive: true, force: true });
    }
  },
});

interface DevOptions {
  dir: string;
  kept: boolean;
  httpPort: number;
  /** 0 = any. */
  grpcPort: number;
  once: boolean;
}

async function play(options: DevOptions, given: Surroundings): Promise<number> {
  const { dir, httpPort, once } = options;
  const { home, stop } = given;
  // Nothing of the user's own ~/.aegis takes part.
  const place = { env: { ...given.env, AEGIS_HOME: dir, AEGIS_CONTROLLER: "", AEGIS_USER_TOKEN: "" }, home };
  const log = jsonLog("warn");
  const dataDir = defaultControllerDir(place.env, home);
  const token = await prepareController(dataDir, options, place);
  const controller = await startController({ dataDir, httpPort, clock, log });
  const ending = new AbortController();
  let daemon: Promise<void> = Promise.resolve();
  try {
    const url = controller.httpUrl;
    await saveProfile(place, { name: hostName, url, token, caPem: null, tenantId: "default", fingerprint: null });
    const client = createApiClient({ url, token, caPem: null });
    const nodeId = await enrollHere(client, place);
    const stateDir = defaultEdgeDir(place.env, home);
    const signal = AbortSignal.any([ending.signal, stop]);
    daemon = runDaemon({ stateDir, ...place, clock, log, signal });
    await Promise.race([connected(client, nodeId, stop), endedEarly(daemon)]);
    if (stop.aborted) return 0;
    const status = await firstCall(client, nodeId, given);
    if (once || status !== 0) return status;
    tellHow(options, controller, given);
    await untilAbort(Promise.race([controller.stopped, endedEarly(daemon)]), stop);
    return 0;
  } finally {
    ending.abort();
    await daemon.catch(() => {});
    await controller.close();
  }
}

/** Answers the operator's token: of a controller made now, or of the one that lies there. */
async function prepareController(
  dataDir: string,
  { grpcPort }: DevOptions,
  place: { env: Environment; home: string },
): Promise<Secret> {
  if ((await readTextFile(controllerConfigPath(dataDir))) === null) {
    const publicEndpoint = `localhost:${grpcPort || (await freePort())}`;
    const made = await initController({ dataDir, publicEndpoint, tenantId: "default", clock });
    await saveProfile(place, {
      ...{ name: hostName, url: made.httpUrl, token: made.operatorToken, caPem: null },
      ...{ tenantId: "default", fingerprint: made.rootFingerprint },
    });
    return made.operatorToken;
  }
  const { publicEndpoint } = await loadControllerConfig(dataDir);
  const known = readEndpoint(publicEndpoint);
  if (grpcPort !== 0 && grpcPort !== known.port)
    throw new AegisError("usage", `the host in ${dataDir} connects to port ${known.port}, not ${grpcPort}`, {
      hint: "leave --grpc-port out, or take another --data-dir",
    });
  return (await loadProfile({ ...place, name: hostName })).token;
}

/** Answers the node id. Twice is the same as once. */
async function enrollHere(client: ApiClient, place: { env: Environment; home: string }): Promise<string> {
  const { token } = await client.issueEnrollmentToken({ name: hostName });
  const plan = await planEnrollment({
    ...place,
    token,
    stateDir: defaultEdgeDir(place.env, place.home),
    hostname: hostname(),
    ...{ labels: {}, allow: [], fullAccess: false, minimal: false, conflicts: "keep" },
  });
  return (await enroll(plan, { clock, log: silentLog })).nodeId;
}

async function connected(client: ApiClient, nodeId: string, stop: AbortSignal): Promise<void> {
  const until = clock.monotonic() + connectTimeoutMs;
  while (!stop.aborted) {
    const { items } = await client.hosts({ connected: true });
    if (items.some((host) => host.node_id === nodeId)) return;
    if (clock.monotonic() > until)
      throw new AegisError("edge_unavailable", `the edge did not connect within ${connectTimeoutMs / 1000} s`);
    await clock.sleep(20, stop);
  }
}

/** Only ever rejects: a daemon that ends by itself while it is needed is a failure. */
async function endedEarly(daemon: Promise<void>): Promise<never> {
  await daemon;
  throw new AegisError("edge_unavailable", "the edge daemon ended by itself; its log above says why");
}

async function firstCall(client: ApiClient, nodeId: string, { terminal, stop }: Surroundings): Promise<number> {
  const [program, ...args] = smoke;
  terminal.note(`${smoke.join(" ")}, from the REST API over the sealed stream to the host and back:`);
  const request = { target: { Node: nodeId }, tool: "cmd.run", args: { command: program, args } };
  const report = await followRun(client, request, bareView(terminal), stop);
  const result = report.results.get(nodeId);
  if (result && !result.ok) terminal.fail(new AegisError("internal", inWords(result)));
  else if (result) terminal.note(`${result.duration_ms} ms, receipt ${result.receipt}`);
  return exitOf(report);
}

function tellHow({ dir, kept }: DevOptions, controller: RunningController, { terminal }: Surroundings): void {
  const self = /^aegis/.test(basename(process.execPath)) ? process.execPath : "aegis";
  const lines = [
    `host ${hostName} is connected to the controller at ${controller.httpUrl}; in another terminal:`,
    `  export AEGIS_HOME=${dir}`,
    `  ${self} edge exec ${hostName} -- uname -a`,
    kept ? `Ctrl-C ends it; ${dir} stays.` : `Ctrl-C ends it and removes ${dir}.`,
  ];
  for (const line of lines) terminal.note(line);
}
