/** Which hosts can be reached from this machine alone: only there may a token travel unencrypted. */
import { isIP } from "node:net";

/** An IPv6 address without its brackets. A name is taken for loopback only when it is `localhost`. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || (isIP(host) === 4 && host.startsWith("127.")) || host === "::1";
