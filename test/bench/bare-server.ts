/** The transport alone, for the bench of scale: grpc-js on Bun over TLS, holding streams on which nothing happens. */
import { readFileSync } from "node:fs";
import { Metadata, Server, ServerCredentials, type ServerDuplexStream, type ServiceDefinition } from "@grpc/grpc-js";
import { clusterService } from "../../src/wire/service.ts";

const [keyFile = "", certificateFile = ""] = process.argv.slice(2);
const server = new Server({ "grpc.keepalive_time_ms": 20_000, "grpc.keepalive_timeout_ms": 10_000 });
const unused = () => {};
server.addService(clusterService as unknown as ServiceDefinition, {
  ...{ attestNode: unused, challengeNode: unused, rotateEdgeKey: unused },
  connectEdge(call: ServerDuplexStream<unknown, unknown>) {
    call.on("error", unused);
    call.on("data", unused);
    call.on("end", () => call.end());
    call.sendMetadata(new Metadata());
  },
});
const pair = { private_key: readFileSync(keyFile), cert_chain: readFileSync(certificateFile) };
server.bindAsync("127.0.0.1:0", ServerCredentials.createSsl(null, [pair]), (error, port) => {
  if (error) throw error;
  console.log(port);
});
