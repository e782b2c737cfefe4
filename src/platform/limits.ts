/**
 * How much anything may be, in one table: the code holds to it, its errors name it, and test/limits.test.ts tries each at
 * the limit and one past it. What an owner or a controller may set instead is said beside it.
 */

const KiB = 1024;
const MiB = 1024 * KiB;

export const limits = {
  /** One gRPC message, either way. */
  messageBytes: 4 * MiB,
  /** The body of one sealed frame: a message less its frame. */
  sealedBodyBytes: 4 * MiB - 4 * KiB,
  /** One piece of live output. */
  progressChunkBytes: 32 * KiB,
  /** The arguments of one call, as JSON text. */
  argsBytes: 1 * MiB,
  /** The body of one REST request. */
  requestBodyBytes: 2 * MiB,
  /** What is kept of each stream of a process's output; `max_response_size` of a capability. */
  outputBytes: 1 * MiB,
  /** Calls that run at once on a host; `max_concurrent_invocations` of its settings. */
  callsPerHost: 16,
  /** Calls that wait on a host for a place. */
  queuedCallsPerHost: 256,
  /** Live output that one command may be ahead of its reader; it begins with less, and all of a session share the rest. */
  creditPerCommandBytes: 4 * MiB,
  firstCreditBytes: 256 * KiB,
  creditPerSessionBytes: 32 * MiB,
  /** The newest live output of one of several calls that nobody takes, on its host. */
  progressRingBytes: 1 * MiB,
  /** Hosts that are not revoked; `limits.hosts` of the controller's settings. */
  hostsPerController: 10_000,
  /** Enrollments that one address begins and does not end, in a minute; `limits.enrollment_attempts_per_minute`. */
  enrollmentAttemptsPerMinute: 30,
  /** Enrollment tokens issued for one tenant, in a minute; `limits.enrollment_tokens_per_minute`. */
  enrollmentTokensPerMinute: 100,
  /** How long ended runs and their results are kept; `limits.run_retention_days` of the controller's settings. */
  runRetentionDays: 90,
  /** Targets of one run that are under way at a time. */
  targetsInFlight: 1_000,
} as const;
