/** What `doctor` finds: one line for each thing that must be so, and what to do where it is not. */
import { AegisError } from "../errors.ts";

export interface Finding {
  check: string;
  state: "ok" | "warning" | "failed" | "skipped";
  detail: string;
  remedy: string | null;
}

export const ok = (check: string, detail: string): Finding => ({ check, state: "ok", detail, remedy: null });
export const warning = (check: string, detail: string, remedy: string): Finding => ({
  check,
  state: "warning",
  detail,
  remedy,
});
export const skipped = (check: string, detail: string): Finding => ({ check, state: "skipped", detail, remedy: null });

export function failed(check: string, thrown: unknown, remedy?: string): Finding {
  const { message, hint } = AegisError.from(thrown);
  return { check, state: "failed", detail: message, remedy: remedy ?? hint ?? null };
}

/** Runs `examine`; what it throws is the finding. The value is null where it failed. */
export async function examined<T>(
  check: string,
  examine: () => Promise<{ value: T; finding: Finding }>,
  remedy?: string,
): Promise<{ value: T | null; finding: Finding }> {
  try {
    return await examine();
  } catch (thrown) {
    return { value: null, finding: failed(check, thrown, remedy) };
  }
}
