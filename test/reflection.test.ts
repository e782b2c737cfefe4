/** A stranger's gRPC client finds its way: health and reflection, asked by grpc's own C implementation from Debian. */
import { afterAll, beforeAll, expect } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type GrpcServer, startGrpc } from "../src/controller/grpc.ts";
import { createTls, loadTls } from "../src/controller/tls.ts";
import { AegisError } from "../src/errors.ts";
import { silentLog } from "../src/platform/log.ts";
import { needs } from "./support/needs.ts";

const python = "/usr/bin/python3";
const debianProtos = "/usr/share/grpc-proto";
const work = mkdtempSync(join(tmpdir(), "aegis-reflection-"));
let server: GrpcServer;

beforeAll(async () => {
  mkdirSync(join(work, "keys"));
  await createTls(work, "localhost", Date.now());
  const nobody = () => Promise.reject(new AegisError("internal", "not part of this test"));
  server = await startGrpc({
    host: "127.0.0.1",
    port: 0,
    tls: await loadTls(work),
    doorman: { isFull: () => false, enter: () => null, hello: nobody },
    enrollment: {
      issue: nobody,
      challenge: nobody,
      attest: ({ nodeId }) => {
        throw new AegisError("invalid_request", `${nodeId} is no UUID`);
      },
    },
    rotations: { rotate: nobody },
    log: silentLog,
  });
});
afterAll(() => {
  server.close();
  rmSync(work, { recursive: true });
});

const SERVING = 1;
const NOT_SERVING = 2;

needs(
  "command:protoc",
  `file:${debianProtos}`,
  "file:/usr/include/google/protobuf/struct.proto",
  "file:/usr/lib/python3/dist-packages/grpc/__init__.py",
)(
  "a foreign client checks health, lists services, reads every descriptor and makes a call with them",
  async () => {
    const protoc = (out: string, include: string, ...files: string[]) => {
      const flags = [`-I${include}`, "--include_imports", `--descriptor_set_out=${join(work, out)}`];
      const run = Bun.spawnSync(["protoc", ...flags, ...files], { stderr: "inherit" });
      expect(run.exitCode).toBe(0);
    };
    const reflection = ["v1", "v1alpha"].map((version) => `grpc/reflection/${version}/reflection.proto`);
    protoc("peers.pb", debianProtos, "grpc/health/v1/health.proto", ...reflection);
    protoc("aegis.pb", join(import.meta.dir, "../proto"), "aegis/cluster/v1/aegis_cluster.proto");

    const script = join(import.meta.dir, "support/grpc-probe.py");
    const probe = Bun.spawn([python, script, String(server.port), join(work, "keys/tls-ca.pem"), work], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    const said = new Response(probe.stdout).text();
    let complaints = "";
    for await (const part of probe.stderr.pipeThrough(new TextDecoderStream())) {
      complaints += part;
      if (!complaints.endsWith("watching\n")) continue;
      server.stopServing();
      probe.stdin.write("go on\n");
      await probe.stdin.end();
      break;
    }
    expect({ exit: await probe.exited, complaints: complaints.replace("watching\n", "") }).toEqual({
      exit: 0,
      complaints: "",
    });

    const services = [
      "aegis.cluster.v1.NodeClusterService",
      "grpc.health.v1.Health",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
    ];
    const files = [
      "aegis/cluster/v1/aegis_cluster.proto",
      "google/protobuf/duration.proto",
      "google/protobuf/struct.proto",
      "google/protobuf/timestamp.proto",
      "grpc/health/v1/health.proto",
      "grpc/reflection/v1/reflection.proto",
      "grpc/reflection/v1alpha/reflection.proto",
    ];
    expect(JSON.parse(await said)).toEqual({
      health: { "": SERVING, "aegis.cluster.v1.NodeClusterService": SERVING, nobody: "NOT_FOUND" },
      services_v1: services,
      services_v1alpha: services,
      files_v1: files,
      files_v1alpha: files,
      file_of_method: "aegis/cluster/v1/aegis_cluster.proto",
      errors: { symbol: 5, file: 5 },
      not_as_protoc_says: [],
      attest: ["INVALID_ARGUMENT", "me is no UUID"],
      watched: [SERVING, NOT_SERVING],
      health_after: NOT_SERVING,
    });
  },
  30_000,
);
