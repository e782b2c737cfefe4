/** Why an enrollment failed, at which of its steps, and what to do about it. */
import { formatDuration } from "../config/duration.ts";
import { AegisError } from "../errors.ts";

export type EnrollStep = "token" | "plan" | "connect" | "attest" | "challenge" | "verify" | "write";

const steps: Readonly<Record<EnrollStep, string>> = {
  token: "reading the token",
  plan: "looking at what is here",
  connect: "connecting to the controller",
  attest: "announcing this host (AttestNode)",
  challenge: "proving its key and redeeming the token (ChallengeNode)",
  verify: "verifying the controller's answer",
  write: "writing the state directory",
};

/** Carries the code and the hint of its cause; the message begins with the step. */
export class EnrollError extends AegisError {
  readonly step: EnrollStep;

  constructor(step: EnrollStep, cause: AegisError, hint = cause.hint) {
    super(cause.code, `enrollment failed while ${steps[step]}: ${cause.message}`, {
      cause,
      ...(hint === undefined ? {} : { hint }),
    });
    this.step = step;
  }
}

/** What is known when a step fails, for the remedy. */
export interface FailedStep {
  step: EnrollStep;
  error: AegisError;
  nodeId: string;
  /** The host has a key that the new one would replace. */
  rekeys: boolean;
  /** Wall clock of this host minus the controller's, in milliseconds; null when the controller did not answer. */
  offsetMs: number | null;
}

/** Adds what the host alone knows: how far apart the clocks are, and what to do here. */
export function explained({ step, error, nodeId, rekeys, offsetMs }: FailedStep): EnrollError {
  const clocks = step === "challenge" && error.code === "unauthenticated" ? clockWords(offsetMs) : "";
  const cause = clocks ? new AegisError(error.code, `${error.message}${clocks}`, { cause: error }) : error;
  return new EnrollError(step, cause, remedy(step, error, nodeId, rekeys));
}

/** Clocks that differ by less than this are the same for a token that lives minutes. */
const noticedOffsetMs = 5_000;

function clockWords(offsetMs: number | null): string {
  if (offsetMs === null) return "";
  if (Math.abs(offsetMs) < noticedOffsetMs) return " (this host's clock agrees with the controller's)";
  const way = offsetMs < 0 ? "behind" : "ahead of";
  return ` (this host's clock is ${formatDuration(Math.round(Math.abs(offsetMs) / 1000) * 1000)} ${way} the controller's)`;
}

function remedy(step: EnrollStep, error: AegisError, nodeId: string, rekeys: boolean): string | undefined {
  if (step !== "attest" && step !== "challenge") return error.hint;
  switch (error.code) {
    case "unauthenticated":
      return "nothing was changed here. Ask for a new token: aegis edge token issue";
    case "conflict":
      return `nothing was changed here. Ask for a token bound to this host: aegis edge token issue --for ${nodeId}; or make it a new host: aegis edge enroll --force TOKEN`;
    case "rate_limited":
      return "nothing was changed here. Wait a minute, then run the same command again";
    case "unavailable":
      if (step === "attest") return error.hint;
      return `nothing was changed here, but the controller may have admitted the host before its answer was lost: look with aegis edge ls${
        rekeys ? "; if it did, the old key is void" : ""
      }. If ${nodeId} is listed, go on with aegis edge token issue --for ${nodeId}, else with a new token`;
    default:
      return error.hint;
  }
}
