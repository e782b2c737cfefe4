/** A server, or something in front of it, that says GOAWAY: what runs may end in its grace, and the host comes back by itself. */
import { afterEach, expect, test } from "bun:test";
import { Metadata, Server, ServerCredentials, type ServerDuplexStream, type ServiceDefinition } from "@grpc/grpc-js";
import { type EdgeCommand, type EdgeEvent, edgeStream } from "../src/controller/edge-stream.ts";
import { grpcLink } from "../src/daemon/grpc-link.ts";
import { clusterService } from "../src/wire/service.ts";
import { eventually } from "./support/aegis.ts";
import { fakeClock } from "./support/fake-clock.ts";
import { type StrictDaemon, strictDaemon } from "./support/strict-daemon.ts";
import { type HostIdentity, hostIdentity } from "./support/strict-keys.ts";
import { type StrictController, strictController } from "./support/strict-pair.ts";

const ageMs = 500;

let controller: StrictController;
let identity: HostIdentity;
let server: Server;
let daemon: StrictDaemon;
let connections: Set<string>;

/** For a call that ends within it, also on a busy machine. */
const longGraceMs = 3_000;
const shortGraceMs = 700;

async function serve(graceMs: number): Promise<void> {
  controller = await strictController({ clock: fakeClock() });
  identity = hostIdentity(controller.strict, controller.clock.now());
  await controller.enroll(identity);
  connections = new Set();
  server = new Server({ "grpc.max_connection_age_ms": ageMs, "grpc.max_connection_age_grace_ms": graceMs });
  server.addService({ connectEdge: clusterService.connectEdge } as unknown as ServiceDefinition, {
    connectEdge(call: ServerDuplexStream<EdgeEvent, EdgeCommand>) {
      connections.add(call.getPeer());
      const stream = edgeStream({
        ...{ doorman: controller.doorman, address: "192.0.2.1", log: controller.log },
        transport: {
          accept: () => call.sendMetadata(new Metadata()),
          send: (command) => void call.write(command),
          refuse: (code, details) => call.emit("error", { code, details, metadata: new Metadata() }),
          end: () => call.end(),
        },
      });
      for (const event of ["cancelled", "error", "close"]) call.on(event, stream.gone);
      call.on("end", stream.end);
      call.on("data", stream.event);
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const link = grpcLink({ host: "127.0.0.1", port, tls: null });
  daemon = strictDaemon({ link, clock: fakeClock(), strict: controller.strict, identity });
}
afterEach(() => server.forceShutdown());

const isUp = () => controller.sessions.get(identity.nodeId) !== undefined;

test("a call that ends within the grace is answered, and the next session is another connection", async () => {
  await serve(longGraceMs);
  const first = daemon.connect();
  await eventually("connected", isUp);
  const call = controller.call({ nodeId: identity.nodeId });
  await eventually("the call runs", () => daemon.tool.runs.length === 1);
  const begun = performance.now();
  // Said by now: the age is over, the grace is not.
  await eventually("GOAWAY was said", () => performance.now() - begun > ageMs + 200);
  expect(isUp()).toBe(true);
  daemon.tool.runs[0]?.end();
  expect(await call.result).toMatchObject({ ok: true, receipt: "verified" });

  const end = await first.ended;
  expect(end).toMatchObject({ kind: "lost" });
  expect(end.kind === "lost" ? (end.retryAfterMs ?? 0) : -1).toBe(0);
  await eventually("the controller noticed", () => !isUp());
  const second = daemon.connect();
  await eventually("connected again", isUp);
  expect(connections.size).toBe(2);
  second.stop();
  await second.ended;
});

test("a call that outlives the grace goes on, and its result comes over the next connection", async () => {
  await serve(shortGraceMs);
  const first = daemon.connect();
  await eventually("connected", isUp);
  const call = controller.call({ nodeId: identity.nodeId });
  await eventually("the call runs", () => daemon.tool.runs.length === 1);
  await first.ended;
  expect(await call.result).toMatchObject({ outcome: "edge_disconnected" });
  expect(daemon.tool.runs[0]?.context.signal.aborted).toBe(false);
  const second = daemon.connect();
  await eventually("connected again", isUp);
  daemon.tool.runs[0]?.end();
  await eventually("it is stored", async () => (await controller.store.command(call.commandId))?.outcome === "ok");
  expect(daemon.tool.runs).toHaveLength(1);
  second.stop();
  await second.ended;
});
