/** JSON values as google.protobuf.Struct and back. Numbers are doubles there, so nothing signed depends on it. */
import type { google } from "./gen/messages.js";

type Value = google.protobuf.Value.$Properties;
type Struct = google.protobuf.Struct.$Properties;

export function jsonToStruct(object: Record<string, unknown>): Struct {
  return { fields: Object.fromEntries(Object.entries(object).map(([key, value]) => [key, jsonToValue(value)])) };
}

function jsonToValue(value: unknown): Value {
  if (value === null || value === undefined) return { nullValue: 0 };
  if (typeof value === "boolean") return { boolValue: value };
  if (typeof value === "number") return Number.isFinite(value) ? { numberValue: value } : { nullValue: 0 };
  if (typeof value === "string") return { stringValue: value };
  if (Array.isArray(value)) return { listValue: { values: value.map(jsonToValue) } };
  return { structValue: jsonToStruct(value as Record<string, unknown>) };
}

export function structToJson(struct: Struct): Record<string, unknown> {
  return Object.fromEntries(Object.entries(struct.fields ?? {}).map(([key, value]) => [key, valueToJson(value)]));
}

function valueToJson(value: Value): unknown {
  if (value.structValue) return structToJson(value.structValue);
  if (value.listValue) return (value.listValue.values ?? []).map(valueToJson);
  return value.stringValue ?? value.numberValue ?? value.boolValue ?? null;
}
