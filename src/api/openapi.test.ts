import { expect, test } from "bun:test";
import { Validator } from "@seriousme/openapi-schema-validator";
import { openApiDocument } from "./openapi.ts";
import { operations } from "./operations.ts";

interface Document {
  openapi: string;
  paths: Record<string, Record<string, { operationId: string; parameters?: Array<{ name: string; in: string }> }>>;
  components: { schemas: Record<string, unknown> };
}
const document = openApiDocument({ version: "0.1.0" }) as unknown as Document;

test("the API's description is valid OpenAPI 3.1", async () => {
  const outcome = await new Validator().validate(structuredClone(document) as never);
  expect(outcome.errors ?? []).toEqual([]);
  expect([outcome.valid, document.openapi]).toEqual([true, "3.1.0"]);
});

test("it has every operation once, with its parameters", () => {
  const described = Object.values(document.paths).flatMap((path) => Object.values(path));
  const ids = described.map(({ operationId }) => operationId);
  expect(new Set(ids).size).toBe(ids.length);
  for (const name of Object.keys(operations)) expect(ids).toContain(name);
  const hosts = document.paths["/v1/edge/hosts"]?.get?.parameters?.map(({ name }) => name);
  expect(hosts).toEqual(["limit", "cursor", "tag", "label", "connected", "all"]);
  expect(document.paths["/v1/edge/hosts/{id}"]?.patch?.parameters?.map(({ name }) => name)).toEqual(["id", "If-Match"]);
});

test("every reference leads somewhere, and every named schema is referred to", () => {
  const text = JSON.stringify(document);
  const references = new Set([...text.matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map((match) => match[1]));
  for (const name of references) expect(document.components.schemas).toHaveProperty([name ?? ""]);
  const unused = Object.keys(document.components.schemas).filter((name) => !references.has(name));
  expect(unused.filter((name) => !name.startsWith("event_"))).toEqual([]);
});
