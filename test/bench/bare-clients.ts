/** The other end of bare-server.ts: so many streams, each on a TCP and TLS connection of its own. Says how many are open. */
import { readFileSync } from "node:fs";
import { grpcLink } from "../../src/daemon/grpc-link.ts";

const [port = "", caFile = "", count = ""] = process.argv.slice(2);
const tls = {
  pins: [],
  caPem: readFileSync(caFile, "utf8"),
  serverName: "localhost",
  clientCertificate: null,
  proxy: null,
};
const stop = new AbortController();
for (let number = 1; number <= Number(count); number++) {
  const link = grpcLink({ host: "127.0.0.1", port: Number(port), tls });
  const stream = await link.open({ onCommand: () => {}, onEnd: ({ message }) => console.error(message) }, stop.signal);
  stream.send({ hello: { streamId: "bench" } });
  if (number % 100 === 0 || number === Number(count)) console.log(number);
}
setInterval(() => {}, 60_000);
