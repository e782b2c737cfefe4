import { expect, test } from "bun:test";
import { readTraceContext, traceparent } from "./trace-context.ts";

const [traceId, spanId] = ["4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"];
const valid = `00-${traceId}-${spanId}-01`;

test("a trace context is read and written as the standard says", () => {
  const context = readTraceContext(valid, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
  expect(context).toEqual({ traceId, spanId, sampled: true, state: "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE" });
  expect(context && traceparent(context)).toBe(valid);
  expect(readTraceContext(`00-${traceId}-${spanId}-00`)).toMatchObject({ sampled: false, state: "" });
  // A later version may say more at its end.
  expect(readTraceContext(`01-${traceId}-${spanId}-03-more`)).toMatchObject({ traceId, sampled: true });
});

test("what is no trace context is as good as absent", () => {
  for (const text of [
    ...[undefined, null, 7, "", "00", [valid], `${valid} `, `${valid}-more`, `ff-${traceId}-${spanId}-01`],
    ...[`00-${"0".repeat(32)}-${spanId}-01`, `00-${traceId}-${"0".repeat(16)}-01`, `00-${traceId}-${spanId}-1`],
    ...[
      valid.toUpperCase(),
      `${valid}, ${valid}`,
      `00-${traceId}\n-${spanId}-01`,
      `01-${traceId}-${spanId}-01-${"x".repeat(200)}`,
    ],
  ])
    expect(readTraceContext(text)).toBeNull();
});

test("a tracestate that is none, or too long, is left out, and the trace stays", () => {
  const long = Array.from({ length: 33 }, (_, n) => `k${n}=v`).join(",");
  for (const state of [undefined, 7, "novalue", "A=b", "a=b\n", "a=\u00e9", `a=${"b".repeat(512)}`, long])
    expect(readTraceContext(valid, state)).toMatchObject({ traceId, state: "" });
});
