/** Finds a port that nobody uses, for whoever must name it before it is opened. */
import { createServer } from "node:net";

/** Free a moment ago on the loopback address; somebody else may still take it first. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "localhost", () => {
      const address = server.address();
      server.close(() => {
        if (address !== null && typeof address === "object") resolve(address.port);
        else reject(new Error("the system named no port"));
      });
    });
  });
}
