/** One write at a time: of what comes meanwhile only the newest is kept, so that a host that talks fast fills no queue. */
export function newestOnly<T>(write: (value: T) => Promise<void>): (value: T) => void {
  let next: { value: T } | null = null;
  let writing = false;
  const run = async () => {
    writing = true;
    for (let one = next; one; one = next) {
      next = null;
      await write(one.value);
    }
    writing = false;
  };
  return (value) => {
    next = { value };
    if (!writing) void run();
  };
}
