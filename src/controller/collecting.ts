/** A dispatcher whose calls have their garbage collected as their output passes. */
import type { Garbage } from "../platform/garbage.ts";
import type { Dispatcher } from "./dispatch-types.ts";

export const collecting = (dispatcher: Dispatcher, garbage: Garbage): Dispatcher => ({
  async *call(request, signal) {
    for await (const event of dispatcher.call(request, signal)) {
      if (event.kind === "progress") garbage.passed(event.chunk.length);
      else garbage.passed(event.receiptProof?.result.length ?? 0);
      yield event;
    }
  },
});
