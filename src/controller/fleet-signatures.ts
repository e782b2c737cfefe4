/** Calls of a run that wait for an operator to sign them again, each for its host and for a while at most. */
import type { Clock } from "../platform/clock.ts";

/** How long a host waits for a new signature. A command line answers in moments; who is silent this long is gone. */
export const signaturePatienceMs = 30_000;
/** How often in a run one host's call is signed again. */
export const maxSignaturesAgain = 3;

export type SignatureAnswer =
  /** A serialised OperatorProof. */
  | { kind: "signed"; proof: Uint8Array }
  /** The operator is there and will not sign. */
  | { kind: "declined" }
  | { kind: "gone" };

export interface SignatureDesk {
  /** Nobody answered in time: nobody is asked again. */
  readonly operatorGone: boolean;
  /** An abort counts as a refusal. */
  wait(nodeId: string, signal: AbortSignal): Promise<SignatureAnswer>;
  /** An empty proof declines. False when the node waits for none. */
  give(nodeId: string, proof: Uint8Array): boolean;
}

export function signatureDesk(clock: Clock): SignatureDesk {
  const waiting = new Map<string, (answer: SignatureAnswer) => void>();
  let operatorGone = false;
  return {
    get operatorGone() {
      return operatorGone;
    },
    wait(nodeId, signal) {
      const { promise, resolve } = Promise.withResolvers<SignatureAnswer>();
      const over = new AbortController();
      const declined = () => resolve({ kind: "declined" });
      waiting.set(nodeId, resolve);
      void clock.sleep(signaturePatienceMs, over.signal).then(() => {
        if (over.signal.aborted) return;
        operatorGone = true;
        resolve({ kind: "gone" });
      });
      if (signal.aborted) declined();
      else signal.addEventListener("abort", declined, { once: true });
      return promise.finally(() => {
        over.abort();
        signal.removeEventListener("abort", declined);
        waiting.delete(nodeId);
      });
    },
    give(nodeId, proof) {
      const resolve = waiting.get(nodeId);
      if (!resolve) return false;
      waiting.delete(nodeId);
      resolve(proof.length > 0 ? { kind: "signed", proof } : { kind: "declined" });
      return true;
    },
  };
}
