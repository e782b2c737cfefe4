/** The one error class, its closed list of codes, and what each code means to every audience. */

/** code -> exit status of the CLI, HTTP status, gRPC status, whether trying again can help. */
export const errorTable = {
  internal: { exit: 1, http: 500, grpc: 13, retryable: false },
  usage: { exit: 2, http: 400, grpc: 3, retryable: false },
  invalid_request: { exit: 2, http: 400, grpc: 3, retryable: false },
  unauthenticated: { exit: 3, http: 401, grpc: 16, retryable: false },
  forbidden: { exit: 3, http: 403, grpc: 7, retryable: false },
  not_found: { exit: 1, http: 404, grpc: 5, retryable: false },
  conflict: { exit: 1, http: 409, grpc: 6, retryable: false },
  precondition_failed: { exit: 1, http: 412, grpc: 9, retryable: false },
  too_large: { exit: 2, http: 413, grpc: 8, retryable: false },
  unprocessable: { exit: 1, http: 422, grpc: 9, retryable: false },
  rate_limited: { exit: 1, http: 429, grpc: 8, retryable: true },
  unavailable: { exit: 5, http: 503, grpc: 14, retryable: true },
  bootstrap_conflict: { exit: 4, http: 409, grpc: 6, retryable: false },
  edge_unavailable: { exit: 5, http: 503, grpc: 14, retryable: true },
  fleet_failed: { exit: 6, http: 500, grpc: 13, retryable: false },
  cancelled: { exit: 7, http: 499, grpc: 1, retryable: false },
  deadline_exceeded: { exit: 8, http: 504, grpc: 4, retryable: true },
  require_min_not_met: { exit: 9, http: 422, grpc: 9, retryable: false },
  not_enrolled: { exit: 78, http: 500, grpc: 9, retryable: false },
  config_invalid: { exit: 78, http: 500, grpc: 9, retryable: false },
} as const satisfies Record<string, { exit: number; http: number; grpc: number; retryable: boolean }>;

export type ErrorCode = keyof typeof errorTable;

export const isErrorCode = (text: string): text is ErrorCode => Object.hasOwn(errorTable, text);

/** Says what went wrong, where and with which value; `hint` says what to type or do next. */
export class AegisError extends Error {
  override readonly name = "AegisError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; hint?: string } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }

  get exitCode(): number {
    return errorTable[this.code].exit;
  }

  /** Anything thrown, as an AegisError; what is not ours is `internal` and keeps its cause. */
  static from(thrown: unknown): AegisError {
    if (thrown instanceof AegisError) return thrown;
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return new AegisError("internal", message, { cause: thrown });
  }
}
