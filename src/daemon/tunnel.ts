/**
 * TLS to the controller on a socket that grpc-js has opened, through a proxy where there is one. grpc-js's own connector
 * cannot reach an IP address, ignores the system's store, knows half of the proxies and never asks about pins; this one
 * does all of it. It uses an interface grpc-js marks as internal, which is why grpc-js is pinned exactly and a test guards it.
 */
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import { type CallCredentials, ChannelCredentials, credentials } from "@grpc/grpc-js";
import { AegisError } from "../errors.ts";
import { systemAuthorities } from "../platform/authorities.ts";
import type { ProxyRoute } from "../platform/proxy-env.ts";
import { httpConnect } from "./http-connect.ts";
import { answerTimeoutMs } from "./link.ts";
import { clientRefusal, distrust, otherSpeech, passHttp2, presented, type TlsTrust } from "./tls-trust.ts";

export interface TunnelOptions extends TlsTrust {
  /** PEM of a client certificate and its key, when the controller's front end asks for one. */
  clientCertificate: { certPem: string; keyPem: string } | null;
  /** The way out, when there is no direct one. Without it nothing is ever dialled but the controller itself. */
  proxy?: ProxyRoute | null;
  /** Told why a connection was not believed: grpc-js itself only says that it could not connect. */
  onFailure?: (error: Error) => void;
  /** Told when there is a TCP connection, to the proxy if there is one. */
  onOpened?: () => void;
  /** Told when the far end is believed: what goes wrong from then on is its doing. */
  onBelieved?: () => void;
}

/**
 * Opens TLS to `target` and resolves once the peer is believed. `socket` is already open, to the proxy if there is one;
 * without it one is dialled.
 */
export async function startTls(target: Address, options: TunnelOptions, socket?: Socket): Promise<TLSSocket> {
  const under = await reach(target, options.proxy ?? null, socket);
  try {
    return await tlsToController(under, options);
  } catch (error) {
    under.destroy();
    throw error;
  }
}

/** A connection on which what is written reaches `target`, through the proxy if there is one. */
export async function reach(target: Address, proxy: ProxyRoute | null, socket?: Socket): Promise<Socket> {
  let under = socket ?? (await dial(proxy ?? target));
  try {
    if (proxy?.secure) under = await tlsToProxy(under, proxy);
    if (proxy) await httpConnect(under, target, proxy);
    return under;
  } catch (error) {
    under.destroy();
    throw error;
  }
}

export interface Address {
  host: string;
  port: number;
}

const noAnswer = `no answer within ${answerTimeoutMs / 1000} s`;

function dial({ host, port }: Address): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp({ host, port });
    const failed = (cause: Error) => {
      socket.destroy();
      reject(
        new AegisError("unavailable", `cannot connect to ${host}:${port}: ${cause.message || "refused"}`, { cause }),
      );
    };
    socket.setTimeout(answerTimeoutMs, () => failed(new Error(noAnswer)));
    socket.once("error", failed);
    socket.once("connect", () => {
      socket.off("error", failed);
      socket.setTimeout(0);
      resolve(socket);
    });
  });
}

function tlsToController(socket: Socket, options: TunnelOptions): Promise<TLSSocket> {
  const name = options.serverName;
  return handshake(
    socket,
    { name, as: name, hint: notTls },
    {
      ALPNProtocols: ["h2"],
      // Believing or not is decided below, by rules that Node's own check does not know.
      rejectUnauthorized: false,
      ca: options.caPem ? [options.caPem] : systemAuthorities(process.env),
      ...(options.clientCertificate
        ? { cert: options.clientCertificate.certPem, key: options.clientCertificate.keyPem }
        : {}),
    },
  ).then((tls) => {
    const reason = distrust(presented(tls), options);
    const alpn = tls.alpnProtocol || "none";
    const problem = reason ?? (alpn === "h2" ? null : `the server does not speak HTTP/2 (ALPN ${alpn})`);
    if (problem === null) return tls;
    tls.destroy();
    throw new AegisError("unavailable", `TLS to ${name}: ${problem}`, {
      hint:
        reason === null
          ? passHttp2
          : options.pins.length > 0
            ? "something in between may open TLS; if the controller's certificate was replaced while this host was away, let it in again: aegis edge token issue --for NODE, then here aegis edge enroll --force TOKEN"
            : "a token that pins the controller's key needs no authority; else name the authority's file in SSL_CERT_FILE",
    });
  });
}

/** A proxy is believed as any web server is: by the system's authorities and its name. */
function tlsToProxy(socket: Socket, { host, from }: ProxyRoute): Promise<TLSSocket> {
  const as = `the proxy ${host} (${from})`;
  const hint = "check that this proxy is spoken to over TLS; if it is not, write its address with http://";
  const trust = { rejectUnauthorized: false, ca: systemAuthorities(process.env) };
  return handshake(socket, { name: host, as, hint }, trust).then((tls) => {
    const reason = distrust(presented(tls), { pins: [], caPem: null, serverName: host });
    if (reason === null) return tls;
    tls.destroy();
    throw new AegisError("unavailable", `TLS to ${as}: ${reason}`, {
      hint: "if its authority is your own, name its file in SSL_CERT_FILE",
    });
  });
}

const notTls = "check that this is the port of the controller's gRPC, and that nothing in between speaks in its place";

/** Whom the handshake is with: by name for TLS, as people are told, and what to try when it does not answer in TLS. */
interface FarEnd {
  name: string;
  as: string;
  hint: string;
}

function handshake(
  socket: Socket,
  { name, as, hint }: FarEnd,
  options: Parameters<typeof connect>[0],
): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const tls = connect({ ...options, socket, ...(isIP(name) ? {} : { servername: name }) });
    const fail = (cause: Error) => {
      tls.destroy();
      const refused = clientRefusal(cause.message) ?? otherSpeech(cause.message);
      const what = `TLS to ${as}: ${refused?.reason ?? cause.message}`;
      reject(new AegisError("unavailable", what, { cause, hint: refused?.hint ?? hint }));
    };
    const closed = () => fail(new Error("the connection was closed during the handshake"));
    const silent = () => fail(new Error(noAnswer));
    tls.setTimeout(answerTimeoutMs).once("timeout", silent);
    tls.once("error", fail);
    tls.once("close", closed);
    tls.once("secureConnect", () => {
      tls.setTimeout(0).off("timeout", silent);
      tls.off("error", fail);
      tls.off("close", closed);
      resolve(tls);
    });
  });
}

interface SecureConnector {
  connect(socket: Socket): Promise<{ socket: Socket; secure: boolean }>;
  waitForReady(): Promise<void>;
  getCallCredentials(): CallCredentials;
  destroy(): void;
}

export class TunnelCredentials extends ChannelCredentials {
  readonly #target: Address;
  readonly #options: TunnelOptions | null;

  /** Without options the connection stays as grpc-js opened it: plaintext. */
  constructor(target: Address, options: TunnelOptions | null) {
    super();
    this.#target = target;
    this.#options = options;
  }

  override compose(): ChannelCredentials {
    throw new AegisError("internal", "TunnelCredentials carry no call credentials");
  }

  override _isSecure(): boolean {
    return this.#options !== null;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(): SecureConnector {
    const target = this.#target;
    const options = this.#options;
    let isOver = false;
    return {
      async connect(socket) {
        if (!options) return { socket, secure: false };
        options.onOpened?.();
        try {
          const secured = await startTls(target, options, socket);
          options.onBelieved?.();
          return { socket: secured, secure: true };
        } catch (error) {
          options.onFailure?.(error as Error);
          throw error;
        }
      },
      // A channel that was closed after a failed dial dials once more when its patience is over, and would keep what it gets.
      waitForReady: () =>
        isOver ? Promise.reject(new AegisError("cancelled", "this channel is closed")) : Promise.resolve(),
      getCallCredentials: () => credentials.createEmpty(),
      destroy() {
        isOver = true;
      },
    };
  }
}
