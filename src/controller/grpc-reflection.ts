/** The gRPC reflection service: what this server serves and the descriptors of it, for clients without our .proto files. */
import { type Server, type ServerDuplexStream, type ServiceDefinition, status } from "@grpc/grpc-js";
import { fileDescriptors } from "../wire/gen/descriptors.ts";
import type { grpc } from "../wire/gen/messages.js";
import { reflectionServices } from "../wire/service.ts";

type Request = ReturnType<typeof grpc.reflection.v1.ServerReflectionRequest.decode>;
type Response = grpc.reflection.v1.ServerReflectionResponse.$Properties;

const services = [
  "aegis.cluster.v1.NodeClusterService",
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
  "grpc.reflection.v1alpha.ServerReflection",
];

const fileOfSymbol: ReadonlyMap<string, string> = new Map(
  Object.entries(fileDescriptors).flatMap(([file, { symbols }]) => symbols.map((symbol) => [symbol, file] as const)),
);

export function addReflection(server: Server): void {
  for (const service of reflectionServices) {
    server.addService(service as unknown as ServiceDefinition, {
      serverReflectionInfo(call: ServerDuplexStream<Request, Response>) {
        const sent = new Set<string>();
        call.on("data", (request: Request) => {
          const response = { validHost: request.host, originalRequest: request, ...answer(request, sent) };
          if (call.write(response)) return;
          // Who does not read the answers is not read from: an answer is longer than its question.
          call.pause();
          call.once("drain", () => call.resume());
        });
        call.on("end", () => call.end());
      },
    });
  }
}

/** `sent` holds the files that this stream sent before, which its client has. */
function answer(request: Request, sent: Set<string>): Response {
  switch (request.messageRequest) {
    case "listServices":
      return { listServicesResponse: { service: services.map((name) => ({ name })) } };
    case "fileByFilename":
      return fileWithDependencies(request.fileByFilename ?? "", sent);
    case "fileContainingSymbol":
      return fileWithDependencies(fileOfSymbol.get(request.fileContainingSymbol ?? "") ?? "", sent);
    case "allExtensionNumbersOfType": {
      const baseTypeName = request.allExtensionNumbersOfType ?? "";
      return fileOfSymbol.has(baseTypeName) ? { allExtensionNumbersResponse: { baseTypeName } } : notFound("type");
    }
    case "fileContainingExtension":
      return notFound("extension");
    default:
      return { errorResponse: { errorCode: status.INVALID_ARGUMENT, errorMessage: "the request asks for nothing" } };
  }
}

/** A file asked for by name is sent again; what it depends on only if it was not sent yet. */
function fileWithDependencies(name: string, sent: Set<string>): Response {
  if (!Object.hasOwn(fileDescriptors, name)) return notFound("file or symbol");
  const files: Uint8Array[] = [];
  const add = (file: string) => {
    sent.add(file);
    const { dependencies = [], base64 = "" } = fileDescriptors[file] ?? {};
    files.push(Buffer.from(base64, "base64"));
    for (const dependency of dependencies) if (!sent.has(dependency)) add(dependency);
  };
  add(name);
  return { fileDescriptorResponse: { fileDescriptorProto: files } };
}

const notFound = (what: string): Response => ({
  errorResponse: { errorCode: status.NOT_FOUND, errorMessage: `this server has no such ${what}` },
});
