/**
 * Our .proto files as the FileDescriptorProtos that reflection hands out. protobufjs' own conversion merges files by
 * package and leaves types unresolved, so the few parts that our files are made of are written here.
 */

import descriptor from "protobufjs/ext/descriptor.js";
import protobuf from "protobufjs/index.js";

export interface ProtoSource {
  /** The name others import it by. */
  name: string;
  source: string;
}

interface ProtoFile {
  name: string;
  dependencies: readonly string[];
  /** Full names of its types, services and methods. */
  symbols: readonly string[];
  serialised: Uint8Array;
}

const { FileDescriptorProto } = descriptor;

/** Numbers of FieldDescriptorProto.Label and .Type, as descriptor.proto has them. */
const label = { optional: 1, repeated: 3 };
const scalars: Readonly<Record<string, number>> = {
  double: 1,
  int64: 3,
  uint64: 4,
  int32: 5,
  bool: 8,
  string: 9,
  bytes: 12,
  uint32: 13,
};
const messageType = 11;
const enumType = 14;

/** Each file after those it depends on, the google ones included. */
export function describeFiles(sources: readonly ProtoSource[]): ProtoFile[] {
  const root = new protobuf.Root();
  const members = new Map<string, protobuf.ReflectionObject[]>();
  const dependencies = new Map<string, string[]>();

  function membersOf(packageName: string): protobuf.ReflectionObject[] {
    const found = root.lookup(packageName);
    return found instanceof protobuf.Namespace ? found.nestedArray : [];
  }

  function addCommon(name: string): void {
    if (dependencies.has(name)) return;
    const common = (protobuf.common.get(name) as protobuf.INamespace | null)?.nested;
    if (!common) throw new Error(`protobufjs does not bring ${name}`);
    const before = new Set(membersOf("google.protobuf"));
    root.addJSON(common);
    dependencies.set(name, []);
    members.set(
      name,
      membersOf("google.protobuf").filter((one) => !before.has(one)),
    );
  }

  for (const { name, source } of sources) {
    const parsed = protobuf.parse(source, root, { keepCase: true });
    const imports = parsed.imports ?? [];
    for (const dependency of imports) if (dependency.startsWith("google/protobuf/")) addCommon(dependency);
    dependencies.set(name, imports);
    members.set(name, membersOf(parsed.package ?? ""));
  }
  root.resolveAll();
  return [...dependencies].map(([name, imports]) => ({
    name,
    dependencies: imports,
    symbols: (members.get(name) ?? []).flatMap(symbolsOf),
    serialised: FileDescriptorProto.encode(fileOf(name, imports, members.get(name) ?? [])).finish(),
  }));
}

function symbolsOf(object: protobuf.ReflectionObject): string[] {
  const inside = object instanceof protobuf.Service ? object.methodsArray : [];
  const nested = object instanceof protobuf.Type ? object.nestedArray : [];
  return [object.fullName.slice(1), ...inside.map(({ fullName }) => fullName.slice(1)), ...nested.flatMap(symbolsOf)];
}

function fileOf(name: string, dependency: string[], members: readonly protobuf.ReflectionObject[]) {
  return {
    name,
    package: members[0]?.parent?.fullName.slice(1) ?? "",
    dependency,
    messageType: members.filter((one) => one instanceof protobuf.Type).map(messageOf),
    enumType: members.filter((one) => one instanceof protobuf.Enum).map(enumOf),
    service: members.filter((one) => one instanceof protobuf.Service).map(serviceOf),
    syntax: "proto3",
  };
}

function messageOf(type: protobuf.Type): descriptor.IDescriptorProto {
  // Synthetic oneofs come last, as the format demands.
  const oneofs = type.oneofsArray.toSorted((a, b) => Number(isSynthetic(a)) - Number(isSynthetic(b)));
  const maps = type.fieldsArray.filter((field) => field instanceof protobuf.MapField);
  return {
    name: type.name,
    field: type.fieldsArray.map((field) => fieldOf(field, oneofs)),
    oneofDecl: oneofs.map(({ name }) => ({ name })),
    nestedType: [
      ...type.nestedArray.filter((one) => one instanceof protobuf.Type).map(messageOf),
      ...maps.map((field) => ({
        name: entryName(field),
        field: [
          { name: "key", number: 1, label: label.optional, type: scalars[field.keyType] ?? unknown(field) },
          { name: "value", number: 2, label: label.optional, ...typeOf(field) },
        ],
        options: { mapEntry: true },
      })),
    ],
    enumType: type.nestedArray.filter((one) => one instanceof protobuf.Enum).map(enumOf),
  };
}

function fieldOf(field: protobuf.Field, oneofs: readonly protobuf.OneOf[]): descriptor.IFieldDescriptorProto {
  const isMap = field instanceof protobuf.MapField;
  return {
    name: underscored(field.name),
    number: field.id,
    label: field.repeated || isMap ? label.repeated : label.optional,
    ...(isMap ? { type: messageType, typeName: `${field.parent?.fullName}.${entryName(field)}` } : typeOf(field)),
    ...(field.partOf ? { oneofIndex: oneofs.indexOf(field.partOf) } : {}),
    ...(field.partOf && isSynthetic(field.partOf) ? { proto3Optional: true } : {}),
  };
}

/** protobufjs spells the google files' fields `nullValue`. */
const underscored = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

const isSynthetic = ({ name }: protobuf.OneOf): boolean => name.startsWith("_");

/** `custom_labels` -> `CustomLabelsEntry`. */
const entryName = ({ name }: protobuf.Field): string =>
  `${name.replace(/(?:^|_)([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())}Entry`;

function typeOf(field: protobuf.Field): Pick<descriptor.IFieldDescriptorProto, "type" | "typeName"> {
  const { resolvedType } = field.resolve();
  if (resolvedType instanceof protobuf.Enum) return { type: enumType, typeName: resolvedType.fullName };
  if (resolvedType) return { type: messageType, typeName: resolvedType.fullName };
  return { type: scalars[field.type] ?? unknown(field) };
}

function unknown(field: protobuf.Field): never {
  throw new Error(`${field.fullName} has a type that descriptors.ts does not know: ${field.type}`);
}

const enumOf = ({ name, values }: protobuf.Enum): descriptor.IEnumDescriptorProto => ({
  name,
  value: Object.entries(values).map(([value, number]) => ({ name: value, number })),
});

const serviceOf = (service: protobuf.Service): descriptor.IServiceDescriptorProto => ({
  name: service.name,
  method: service.methodsArray.map((method) => ({
    name: method.name,
    ...typesOf(method),
    ...(method.requestStream ? { clientStreaming: true } : {}),
    ...(method.responseStream ? { serverStreaming: true } : {}),
  })),
});

function typesOf(method: protobuf.Method): Pick<descriptor.IMethodDescriptorProto, "inputType" | "outputType"> {
  method.resolve();
  const { resolvedRequestType: input, resolvedResponseType: output } = method;
  if (!input || !output) throw new Error(`${method.fullName} takes or returns an unknown type`);
  return { inputType: input.fullName, outputType: output.fullName };
}
