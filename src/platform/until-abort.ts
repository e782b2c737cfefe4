/** Waiting that ends with a signal and leaves nothing attached to it. */

/** Resolves with `promise`, or with undefined as soon as `signal` aborts; what comes of `promise` then is nobody's concern. */
export function untilAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      promise.catch(() => {});
      return resolve(undefined);
    }
    const stopped = () => resolve(undefined);
    signal.addEventListener("abort", stopped);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stopped));
  });
}
