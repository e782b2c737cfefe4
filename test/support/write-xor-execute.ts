/** A process that may never make memory executable, as the service's sandbox has it (MemoryDenyWriteExecute). */

// prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), and proof that it holds; it stays across exec.
const script = [
  "import ctypes, os, sys",
  "libc = ctypes.CDLL(None, use_errno=True)",
  "assert libc.prctl(65, 1, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())",
  "assert libc.prctl(66, 0, 0, 0, 0) == 1",
  "os.execv(sys.argv[1], sys.argv[1:])",
].join("\n");

/** Words before a command. Needs `command:python3` and Linux 6.3. */
export const writeXorExecute = ["python3", "-c", script] as const;
