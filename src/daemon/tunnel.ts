/**
 * TLS to the controller on a socket that grpc-js has opened. grpc-js's own connector cannot reach an IP address, ignores
 * the system's store and never asks about pins; this one does all three. It uses an interface grpc-js marks as internal,
 * which is why grpc-js is pinned exactly and a test guards it.
 */
import { isIP, type Socket } from "node:net";
import { connect, getCACertificates, rootCertificates, type TLSSocket } from "node:tls";
import { type CallCredentials, ChannelCredentials, credentials } from "@grpc/grpc-js";
import { AegisError } from "../errors.ts";
import { distrust, presented, type TlsTrust } from "./tls-trust.ts";

export interface TunnelOptions extends TlsTrust {
  /** PEM of a client certificate and its key, when the controller's front end asks for one. */
  clientCertificate: { certPem: string; keyPem: string } | null;
  /** Told why a connection was not believed: grpc-js itself only says that it could not connect. */
  onFailure?: (error: Error) => void;
}

/** Opens TLS on `socket` and resolves once the peer is believed. */
export function startTls(socket: Socket | { host: string; port: number }, options: TunnelOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const where = "host" in socket ? socket : { socket };
    const name = options.serverName;
    const tls = connect({
      ...where,
      ALPNProtocols: ["h2"],
      // Believing or not is decided below, by rules that Node's own check does not know.
      rejectUnauthorized: false,
      ca: options.caPem ? [options.caPem] : systemAuthorities(),
      ...(isIP(name) ? {} : { servername: name }),
      ...(options.clientCertificate
        ? { cert: options.clientCertificate.certPem, key: options.clientCertificate.keyPem }
        : {}),
    });
    const fail = (error: Error) => {
      tls.destroy();
      reject(error);
    };
    const closed = () =>
      fail(new AegisError("unavailable", `the connection to ${name} closed during the TLS handshake`));
    tls.once("error", fail);
    tls.once("close", closed);
    tls.once("secureConnect", () => {
      tls.off("error", fail);
      tls.off("close", closed);
      const reason = distrust(presented(tls), options);
      if (reason) return fail(new AegisError("unavailable", `TLS to ${name}: ${reason}`));
      if (tls.alpnProtocol !== "h2")
        return fail(
          new AegisError(
            "unavailable",
            `TLS to ${name}: the server does not speak HTTP/2 (ALPN ${tls.alpnProtocol || "none"})`,
          ),
        );
      resolve(tls);
    });
  });
}

const systemAuthorities = (): string[] => [...new Set([...rootCertificates, ...getCACertificates("system")])];

interface SecureConnector {
  connect(socket: Socket): Promise<{ socket: Socket; secure: boolean }>;
  waitForReady(): Promise<void>;
  getCallCredentials(): CallCredentials;
  destroy(): void;
}

export class TunnelCredentials extends ChannelCredentials {
  readonly #options: TunnelOptions;

  constructor(options: TunnelOptions) {
    super();
    this.#options = options;
  }

  override compose(): ChannelCredentials {
    throw new AegisError("internal", "TunnelCredentials carry no call credentials");
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(): SecureConnector {
    const options = this.#options;
    return {
      async connect(socket) {
        try {
          return { socket: await startTls(socket, options), secure: true };
        } catch (error) {
          options.onFailure?.(error as Error);
          throw error;
        }
      },
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => credentials.createEmpty(),
      destroy() {},
    };
  }
}
