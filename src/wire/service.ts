/** The cluster service's methods as plain data: paths and codecs that a gRPC client and a gRPC server both accept. */
import { limits } from "../platform/limits.ts";
import { aegis, grpc } from "./gen/messages.js";
import { fieldHead } from "./raw-field.ts";

const cluster = aegis.cluster.v1;
const health = grpc.health.v1;

/** A generated class: what it takes may leave fields out, what it gives has them all. */
interface Codec<In, Out> {
  encode(message: In): { finish(): Uint8Array };
  decode(bytes: Uint8Array): Out;
}

const bytes = (data: Uint8Array): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

const fieldOf = { sealed: 1000, body: 4 };

/** Nearly every message carries one sealed frame, whose body may be long. */
function serializer<In>(codec: Codec<In, unknown>): (message: In) => Buffer {
  return (message) => {
    const { sealed, ...others } = message as { sealed?: aegis.cluster.v1.SealedFrame.$Properties | null };
    if (!sealed?.body || Object.keys(others).length > 0) return bytes(codec.encode(message).finish());
    const { body, ...rest } = sealed;
    const head = Buffer.concat([cluster.SealedFrame.encode(rest).finish(), fieldHead(fieldOf.body, body.length)]);
    return Buffer.concat([fieldHead(fieldOf.sealed, head.length + body.length), head, body]);
  };
}

function method<RequestIn, RequestOut, ResponseIn, ResponseOut>(
  path: string,
  request: Codec<RequestIn, RequestOut>,
  response: Codec<ResponseIn, ResponseOut>,
  streams: { client: boolean; server: boolean } = { client: false, server: false },
) {
  return {
    path,
    requestStream: streams.client,
    responseStream: streams.server,
    requestSerialize: serializer(request),
    requestDeserialize: (data: Buffer) => request.decode(data),
    responseSerialize: serializer(response),
    responseDeserialize: (data: Buffer) => response.decode(data),
  };
}

const name = (rpc: string) => `/aegis.cluster.v1.NodeClusterService/${rpc}`;

export const clusterService = {
  attestNode: method(name("AttestNode"), cluster.AttestNodeRequest, cluster.AttestNodeResponse),
  challengeNode: method(name("ChallengeNode"), cluster.ChallengeNodeRequest, cluster.ChallengeNodeResponse),
  rotateEdgeKey: method(name("RotateEdgeKey"), cluster.RotateEdgeKeyRequest, cluster.RotateEdgeKeyResponse),
  connectEdge: method(name("ConnectEdge"), cluster.EdgeEvent, cluster.EdgeCommand, { client: true, server: true }),
};

export const healthService = {
  check: method("/grpc.health.v1.Health/Check", health.HealthCheckRequest, health.HealthCheckResponse),
  watch: method("/grpc.health.v1.Health/Watch", health.HealthCheckRequest, health.HealthCheckResponse, {
    client: false,
    server: true,
  }),
};

const reflection = (version: string) => ({
  serverReflectionInfo: method(
    `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    grpc.reflection.v1.ServerReflectionRequest,
    grpc.reflection.v1.ServerReflectionResponse,
    { client: true, server: true },
  ),
});

/** Both names of one protocol: older clients know only the alpha. */
export const reflectionServices = [reflection("v1"), reflection("v1alpha")];

/** Longest gRPC message either end takes, in bytes. */
export const maxMessageBytes = limits.messageBytes;

/** Trailing metadata of a refused Hello. */
export const refusalTrailer = "aegis-refusal-bin";
