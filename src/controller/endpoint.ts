/** The controller's public address, HOST:PORT, which also decides where it listens. */
import { isIP } from "node:net";
import { AegisError } from "../errors.ts";
import { isLoopback } from "../platform/loopback.ts";

export interface Endpoint {
  host: string;
  port: number;
  /** HOST:PORT as hosts dial it; an IPv6 address in brackets. */
  text: string;
  /** Whether only this machine can reach it: then nothing listens on any other address, and REST needs no TLS. */
  loopback: boolean;
  /** The same host with another port. */
  authority(port: number): string;
}

export function readEndpoint(text: string): Endpoint {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/\s]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (!host || port < 1 || port > 65_535 || (match?.[1] && isIP(host) !== 6)) {
    throw new AegisError("usage", `the public endpoint ${JSON.stringify(text)} is not HOST:PORT`, {
      hint: "for example --public-endpoint controller.example:50056",
    });
  }
  const name = isIP(host) === 6 ? `[${host}]` : host;
  return { host, port, text: `${name}:${port}`, loopback: isLoopback(host), authority: (other) => `${name}:${other}` };
}
