/** How much the API takes and gives: one table, which the schemas, the server and the tests read. */
import { limits } from "../platform/limits.ts";

export const apiLimits = {
  /** Longest request body, in bytes. */
  bodyBytes: limits.requestBodyBytes,
  /** Longest arguments of one call, as JSON text in bytes. */
  argsBytes: limits.argsBytes,
  /** Items of a page, when nobody asks and at most. */
  pageDefault: 50,
  pageMax: 200,
  /** Targets of one run that may be under way at a time, when nobody asks and at most. */
  concurrencyDefault: 64,
  concurrencyMax: limits.targetsInFlight,
  /** Seconds of one call, when nobody asks and at most (a day). */
  deadlineDefaultSecs: 60,
  deadlineMaxSecs: 86_400,
  /** Seconds an enrollment token lives at most. */
  enrollmentTtlMaxSecs: 900,
  /** Enrollment tokens issued in a minute for one tenant. */
  enrollmentTokensPerMinute: limits.enrollmentTokensPerMinute,
  /** Characters of a name, and of one tag, label key or label value. */
  nameChars: 128,
  tagChars: 64,
  /** Tags of one host. */
  tags: 64,
  /** Members of an explicit list of nodes. */
  nodes: 10_000,
} as const;
