/** Asks an HTTP proxy for a tunnel (CONNECT) on a socket that is open to it, and says in words why it gave none. */
import { isIPv6, type Socket } from "node:net";
import { AegisError } from "../errors.ts";
import type { ProxyRoute } from "../platform/proxy-env.ts";
import { answerTimeoutMs } from "./link.ts";

/** How much a proxy may say before the tunnel, in bytes. */
const maxAnswerBytes = 16 * 1024;

const authority = (host: string, port: number): string => `${isIPv6(host) ? `[${host}]` : host}:${port}`;

/** Resolves once bytes written to `socket` reach `target`. */
export function httpConnect(socket: Socket, target: { host: string; port: number }, proxy: ProxyRoute): Promise<void> {
  const to = authority(target.host, target.port);
  const name = `proxy ${authority(proxy.host, proxy.port)} (${proxy.from})`;
  const lines = [`CONNECT ${to} HTTP/1.1`, `Host: ${to}`];
  if (proxy.auth) lines.push(`Proxy-Authorization: Basic ${Buffer.from(proxy.auth.reveal()).toString("base64")}`);
  return new Promise((resolve, reject) => {
    let answer = Buffer.alloc(0);
    const settle = (error?: AegisError) => {
      socket.setTimeout(0);
      socket.off("data", onData).off("error", onError).off("close", onClose).off("timeout", onTimeout);
      if (!error) return resolve();
      socket.destroy();
      reject(error);
    };
    const onError = (cause: Error) => settle(new AegisError("unavailable", `${name}: ${cause.message}`, { cause }));
    const onClose = () =>
      settle(new AegisError("unavailable", `${name} closed the connection instead of answering CONNECT`));
    const onTimeout = () =>
      settle(new AegisError("unavailable", `${name} did not answer CONNECT within ${answerTimeoutMs / 1000} s`));
    const onData = (chunk: Buffer) => {
      answer = Buffer.concat([answer, chunk]);
      const end = answer.indexOf("\r\n\r\n");
      if (end < 0) {
        if (answer.length > maxAnswerBytes)
          settle(new AegisError("unavailable", `${name} answered more than ${maxAnswerBytes} bytes before any tunnel`));
        return;
      }
      const statusLine = answer.toString("latin1", 0, answer.indexOf("\r\n"));
      const status = Number(/^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(statusLine)?.[1] ?? 0);
      if (status < 200 || status > 299) return settle(refused(name, to, status, statusLine));
      socket.pause();
      const rest = answer.subarray(end + 4);
      settle();
      if (rest.length > 0) socket.unshift(rest);
    };
    socket.setTimeout(answerTimeoutMs);
    socket.on("data", onData).once("error", onError).once("close", onClose).once("timeout", onTimeout);
    socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  });
}

/** What each refusal usually means, and what to do. */
function refused(name: string, to: string, status: number, statusLine: string): AegisError {
  const known: Record<number, [what: string, hint: string]> = {
    403: [`forbids a tunnel to ${to}`, "ask whoever runs the proxy to allow CONNECT to this host and port"],
    407: [
      "asks for a user and password, or refused the ones it got",
      "set them in the proxy's address: http://USER:PASSWORD@HOST:PORT",
    ],
    502: [`cannot reach ${to}`, "check the controller's address, and that the proxy can resolve it"],
    503: [`cannot reach ${to}`, "check the controller's address, and that the proxy can resolve it"],
    504: [`got no answer from ${to}`, "check that the controller runs and is reachable from the proxy"],
  };
  const [what, hint] = known[status] ?? [
    `answered CONNECT with ${JSON.stringify(statusLine.slice(0, 100))}`,
    "check that this address is an HTTP proxy that allows CONNECT",
  ];
  return new AegisError("unavailable", `${name} ${what}${known[status] ? ` (${status})` : ""}`, { hint });
}
