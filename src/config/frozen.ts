/** Makes settings unchangeable all the way down, so that nobody edits what somebody else reads. */

/** Freezes plain objects, lists and maps in place; bytes and key objects are left as they are. */
export function deepFrozen<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  if (value instanceof Map) {
    for (const inner of value.values()) deepFrozen(inner);
    for (const change of ["set", "delete", "clear"])
      Object.defineProperty(value, change, {
        value: () => {
          throw new TypeError("settings cannot be changed");
        },
      });
    return Object.freeze(value);
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) return value;
  for (const inner of Object.values(value)) deepFrozen(inner);
  return Object.freeze(value);
}
