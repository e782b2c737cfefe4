/** The gRPC health service, so that any load balancer or probe can ask whether this controller serves. */
import {
  type Server,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import { grpc } from "../wire/gen/messages.js";
import { healthService } from "../wire/service.ts";

type Request = ReturnType<typeof grpc.health.v1.HealthCheckRequest.decode>;
type Response = grpc.health.v1.HealthCheckResponse.$Properties;
type Watcher = ServerWritableStream<Request, Response>;

const { ServingStatus } = grpc.health.v1.HealthCheckResponse;
const known = new Set(["", "aegis.cluster.v1.NodeClusterService"]);

/** Streams that watch at a time; nobody has to say who they are, so there must be an end to them. */
const maxHealthWatchers = 256;

export interface Health {
  /** Everyone who asks or watches is told NOT_SERVING from now on. */
  stopServing(): void;
}

export function addHealth(server: Server): Health {
  const watchers = new Set<Watcher>();
  let current: grpc.health.v1.HealthCheckResponse.ServingStatus = ServingStatus.SERVING;
  server.addService(healthService as unknown as ServiceDefinition, {
    check(call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>) {
      const { service } = call.request;
      if (known.has(service)) callback(null, { status: current });
      else callback({ code: status.NOT_FOUND, details: `unknown service ${service}` });
    },
    /** Says the state now and whenever it changes; what is unknown stays so. */
    watch(call: Watcher) {
      if (watchers.size >= maxHealthWatchers) {
        const details = `${maxHealthWatchers} watchers are connected, which is the limit; use Check`;
        call.emit("error", { code: status.RESOURCE_EXHAUSTED, details });
        return;
      }
      watchers.add(call);
      const gone = () => watchers.delete(call);
      for (const event of ["cancelled", "error", "close"]) call.on(event, gone);
      call.write({ status: known.has(call.request.service) ? current : ServingStatus.SERVICE_UNKNOWN });
    },
  });
  return {
    stopServing() {
      current = ServingStatus.NOT_SERVING;
      for (const watcher of watchers) if (known.has(watcher.request.service)) watcher.write({ status: current });
    },
  };
}
