/** W3C Trace Context: which trace a call belongs to. Whoever calls chooses it, so it says nothing about who they are. */

export interface TraceContext {
  /** 32 hex digits. */
  traceId: string;
  /** 16 hex digits: the span under which what is begun now belongs. */
  spanId: string;
  sampled: boolean;
  /** `tracestate` as it came; empty when there is none. */
  state: string;
}

/** Longest tracestate that is handed on, in characters. */
export const maxTraceStateChars = 512;

// A later version may append to it; 255 is none.
const form = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.{0,128})?$/;
const member =
  /^[ \t]*(?:[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])?[ \t]*$/;

/** Null for what is no traceparent, which is then as good as absent; a tracestate that is none is left out. */
export function readTraceContext(parent: unknown, state?: unknown): TraceContext | null {
  const [, version, traceId, spanId, flags, more] = (typeof parent === "string" && form.exec(parent)) || [];
  if (!traceId || !spanId || !flags || (version === "00" && more !== undefined)) return null;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1, state: readState(state) };
}

function readState(text: unknown): string {
  if (typeof text !== "string" || text.length > maxTraceStateChars) return "";
  const members = text.split(",");
  return members.length <= 32 && members.every((one) => member.test(one)) ? text.trim() : "";
}

export const traceparent = ({ traceId, spanId, sampled }: TraceContext): string =>
  `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`;
