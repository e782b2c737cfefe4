/** Finds the certificate that a token's pin names, before anything is said to the server that presents it. */
import { isIP } from "node:net";
import { connect } from "node:tls";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import type { ProxyRoute } from "../platform/proxy-env.ts";
import { spkiPin } from "../platform/spki-pin.ts";
import { answerTimeoutMs } from "./link.ts";
import { type Presented, pinnedAnchor, presented } from "./tls-trust.ts";
import { reach } from "./tunnel.ts";

export interface Server {
  host: string;
  port: number;
  /** The name or address the certificate must be for. */
  serverName: string;
  /** The way out, when there is no direct one. */
  proxy: ProxyRoute | null;
  /** What a front end that asks for a certificate is shown. */
  clientCertificate: { certPem: string; keyPem: string } | null;
}

/**
 * The pinned certificate as PEM, when it can be an authority by itself: it is then the only one to believe. Null when
 * the pin is that of a leaf which another authority issued: that authority stays to be judged as usual.
 */
export async function findAnchor(server: Server, pins: readonly string[], clock: Clock): Promise<string | null> {
  const { chain } = await handshake(server, clock);
  const where = `${server.host} port ${server.port}`;
  const [leaf] = chain;
  if (!leaf) throw new AegisError("unavailable", `${where} presented no certificate`);
  if (!chain.some((certificate) => pins.includes(spkiPin(certificate)))) {
    throw new AegisError(
      "unauthenticated",
      `${where} is not the controller that the token is for: none of its certificates has the pinned key (presented ${chain.map(spkiPin).join(", ")}; pinned ${pins.join(", ")}; issued by ${JSON.stringify(leaf.issuer.replaceAll("\n", ", "))})`,
      {
        hint: "a proxy that opens TLS, or another server, answers at this address. If the controller's certificate was replaced, ask for a new token",
      },
    );
  }
  return pinnedAnchor(chain, pins)?.toString() ?? null;
}

/** Ends as soon as it is over: no byte of ours follows it. */
async function handshake(
  { host, port, serverName, proxy, clientCertificate }: Server,
  clock: Clock,
): Promise<Presented> {
  const unreachable = (message: string, cause?: unknown) =>
    new AegisError("unavailable", `cannot reach the controller at ${host} port ${port}: ${message}`, {
      cause,
      hint: "check that the controller runs, that this address is right and that nothing in between blocks it",
    });
  const under = await reach({ host, port }, proxy).catch((error: Error) => {
    throw unreachable(error.message, error);
  });
  const socket = connect({
    socket: under,
    ALPNProtocols: ["h2"],
    rejectUnauthorized: false,
    ...(clientCertificate ? { cert: clientCertificate.certPem, key: clientCertificate.keyPem } : {}),
    ...(isIP(serverName) ? {} : { servername: serverName }),
  });
  const over = new AbortController();
  try {
    return await new Promise<Presented>((resolve, reject) => {
      socket.once("secureConnect", () => resolve(presented(socket)));
      socket.once("error", (error) => reject(unreachable(error.message, error)));
      socket.once("close", () => reject(unreachable("it closed the connection during the TLS handshake")));
      void clock.sleep(answerTimeoutMs, over.signal).then(() => {
        if (!over.signal.aborted) reject(unreachable(`no TLS handshake within ${answerTimeoutMs / 1000} s`));
      });
    });
  } finally {
    over.abort();
    socket.destroy();
    under.destroy();
  }
}
