"""A gRPC client that knows nothing of ours: what it learns about the server it learns through health and reflection.

usage: grpc-probe.py PORT CA_PEM WORK_DIR, with descriptor sets `peers.pb` (health and reflection as Debian ships them)
and `aegis.pb` (protoc's reading of our file) in WORK_DIR. Prints one JSON object. After `watching` was printed on
stderr, a line on stdin says that the server was told to stop serving.
"""
import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def load(path):
    files = descriptor_pb2.FileDescriptorSet()
    with open(path, "rb") as handle:
        files.ParseFromString(handle.read())
    return files.file


def messages(pool, *names):
    # Older releases of protobuf have only the first way, newer ones only the second.
    factory = getattr(message_factory, "MessageFactory", None)
    of = factory(pool).GetPrototype if factory else message_factory.GetMessageClass
    return [of(pool.FindMessageTypeByName(name)) for name in names]


def without_json_names(message):
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        without_json_names(nested)


port, ca, work = sys.argv[1:]
with open(ca, "rb") as handle:
    credentials = grpc.ssl_channel_credentials(handle.read())
channel = grpc.secure_channel(f"localhost:{port}", credentials)
peers = descriptor_pool.DescriptorPool()
for file in load(f"{work}/peers.pb"):
    peers.Add(file)
out = {}


def unary(path, request, response):
    return channel.unary_unary(path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=response.FromString)


Check, Health = messages(peers, "grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse")
check = unary("/grpc.health.v1.Health/Check", Check, Health)


def status(service):
    try:
        return check(Check(service=service), timeout=10).status
    except grpc.RpcError as error:
        return error.code().name


out["health"] = {name: status(name) for name in ["", "aegis.cluster.v1.NodeClusterService", "nobody"]}


def ask(version, **wanted):
    Request, Response = messages(
        peers, f"grpc.reflection.{version}.ServerReflectionRequest", f"grpc.reflection.{version}.ServerReflectionResponse"
    )
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=Request.SerializeToString,
        response_deserializer=Response.FromString,
    )
    (answer,) = call(iter([Request(**wanted)]), timeout=10)
    assert answer.original_request == Request(**wanted)
    return answer


for version in ["v1", "v1alpha"]:
    names = [service.name for service in ask(version, list_services="").list_services_response.service]
    out[f"services_{version}"] = sorted(names)
    learned = {}
    for name in names:
        for data in ask(version, file_containing_symbol=name).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            learned[file.name] = file
    out[f"files_{version}"] = sorted(learned)

method = ask("v1", file_containing_symbol="aegis.cluster.v1.NodeClusterService.ConnectEdge")
first = descriptor_pb2.FileDescriptorProto.FromString(method.file_descriptor_response.file_descriptor_proto[0])
out["file_of_method"] = first.name
out["errors"] = {
    "symbol": ask("v1", file_containing_symbol="no.such.Thing").error_response.error_code,
    "file": ask("v1", file_by_filename="constructor").error_response.error_code,
}

by_protoc = {file.name: file for file in load(f"{work}/aegis.pb")}
different = []
for name, file in by_protoc.items():
    for message in file.message_type:
        without_json_names(message)
    if name.startswith("google/"):
        file.ClearField("options")
    if learned.get(name) != file:
        different.append(name)
out["not_as_protoc_says"] = different

# A real call, made of nothing but what reflection told.
pool = descriptor_pool.DescriptorPool()
remaining = list(learned.values())
while remaining:
    ready = [file for file in remaining if not set(file.dependency) & {other.name for other in remaining}]
    for file in ready:
        pool.Add(file)
        remaining.remove(file)
Attest, Attested = messages(pool, "aegis.cluster.v1.AttestNodeRequest", "aegis.cluster.v1.AttestNodeResponse")
try:
    unary("/aegis.cluster.v1.NodeClusterService/AttestNode", Attest, Attested)(Attest(node_id="me"), timeout=10)
except grpc.RpcError as error:
    out["attest"] = [error.code().name, error.details()]

watch = channel.unary_stream(
    "/grpc.health.v1.Health/Watch", request_serializer=Check.SerializeToString, response_deserializer=Health.FromString
)(Check(), timeout=20)
out["watched"] = [next(watch).status]
print("watching", file=sys.stderr, flush=True)
sys.stdin.readline()
out["watched"].append(next(watch).status)
out["health_after"] = status("")
print(json.dumps(out))
