/** What every handler does with a request: reads its body and query within bounds, and knows who asks. */
import type { Context } from "hono";
import type { z } from "zod";
import { apiLimits } from "../../api/limits.ts";
import { readRequest } from "../../api/read.ts";
import { AegisError } from "../../errors.ts";
import type { Authenticated } from "./auth.ts";

/** What the middleware leaves for handlers. */
export interface HttpEnv {
  /** What the server knows of a request beside itself. */
  Bindings: { remoteAddress?: string };
  Variables: { principal: Authenticated; requestId: string };
}

export type HttpContext = Context<HttpEnv>;

/** The body's text: UTF-8, and no longer than allowed. It stops reading where it is too long. */
export async function readText(request: Request, maxBytes: number = apiLimits.bodyBytes): Promise<string> {
  const tooLarge = () =>
    new AegisError("too_large", `the body is longer than ${maxBytes} bytes`, {
      hint: "send large input as a file: aegis edge cp",
    });
  const said = request.headers.get("content-length");
  if (Number(said ?? 0) > maxBytes) throw tooLarge();
  const chunks: Uint8Array[] = [];
  let size = 0;
  // The server holds a client to the length it said, so that such a body can be taken as a whole.
  for await (const chunk of said === null ? (request.body ?? []) : [await request.bytes()]) {
    size += chunk.length;
    if (size > maxBytes) throw tooLarge();
    chunks.push(chunk);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
  } catch (cause) {
    throw new AegisError("invalid_request", "the body is not UTF-8", { cause });
  }
}

/** A JSON body as `schema` wants it; a request without a body is `{}`. Its text too, for those who compare requests. */
export async function readJson<T>(c: HttpContext, schema: z.ZodType<T>): Promise<{ value: T; text: string }> {
  const type = c.req.header("content-type");
  const text = await readText(c.req.raw);
  if (text.trim() === "") return { value: readRequest(schema, {}, "the request"), text };
  if (type && !/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(type))
    throw new AegisError("invalid_request", `the body is ${JSON.stringify(type)}; only application/json is taken`);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (cause) {
    throw new AegisError("invalid_request", `the body is no JSON: ${(cause as Error).message}`, { cause });
  }
  return { value: readRequest(schema, body, "the request"), text };
}

/** The query as `schema` wants it; the fields in `lists` may be given several times, others once. */
export function readQuery<T>(c: HttpContext, schema: z.ZodType<T>, lists: readonly string[] = []): T {
  const query: Record<string, unknown> = {};
  for (const [name, values] of Object.entries(c.req.queries())) {
    if (lists.includes(name)) query[name] = values;
    else if (values.length === 1) query[name] = values[0];
    else throw new AegisError("invalid_request", `the query has ${name} ${values.length} times`);
  }
  return readRequest(schema, query, "the query");
}
