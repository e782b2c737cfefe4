/** Why an enrollment failed, at which of its steps, and what to do about it. */
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
