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

const { ServingStatus } = grpc.health.v1.HealthCheckResponse;
const known = new Set(["", "aegis.cluster.v1.NodeClusterService"]);

export function addHealth(server: Server): void {
  server.addService(healthService as unknown as ServiceDefinition, {
    check(call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>) {
      const { service } = call.request;
      if (known.has(service)) callback(null, { status: ServingStatus.SERVING });
      else callback({ code: status.NOT_FOUND, details: `unknown service ${service}` });
    },
    /** Says the state once and keeps the stream open; it ends with the server, which is the only change there is. */
    watch(call: ServerWritableStream<Request, Response>) {
      call.write({ status: known.has(call.request.service) ? ServingStatus.SERVING : ServingStatus.SERVICE_UNKNOWN });
    },
  });
}
