/** Puts the REST API on a port. */
import type { Server } from "bun";
import { AegisError } from "../../errors.ts";
import type { TlsIdentity } from "../tls.ts";
import type { App } from "./app.ts";

export interface ServeOptions {
  app: App;
  /** Address to listen on, and port; port 0 picks a free one. */
  host: string;
  port: number;
  /** Null = plaintext. */
  tls: Pick<TlsIdentity, "certPem" | "keyPem"> | null;
}

export interface HttpServer {
  port: number;
  /** New connections get this certificate; those that are open keep theirs. */
  renew(tls: NonNullable<ServeOptions["tls"]>): void;
  /** Takes no new connections and lets requests finish; with `now` ends what is left. */
  close(now: boolean): Promise<void>;
}

/** Longest silence of a connection, in seconds; events are never silent that long. */
const idleSecs = 60;
/** Above what a body may have, so that the application says what is allowed. */
const serverBodyBytes = 64 * 1024 * 1024;

export function serveHttp({ app, host, port, tls }: ServeOptions): HttpServer {
  const listen = (at: number, identity: ServeOptions["tls"]): Server<undefined> =>
    Bun.serve({
      hostname: host,
      port: at,
      idleTimeout: idleSecs,
      maxRequestBodySize: serverBodyBytes,
      fetch(request, self) {
        const remoteAddress = self.requestIP(request)?.address;
        return app.fetch(request, remoteAddress === undefined ? {} : { remoteAddress });
      },
      // What the application itself cannot answer must not show its insides.
      error: () =>
        Response.json({ error: { code: "internal", message: "this controller could not answer" } }, { status: 500 }),
      ...(identity ? { tls: { cert: identity.certPem, key: identity.keyPem } } : {}),
    });
  let server: Server<undefined>;
  /** Those of former certificates, for as long as they have connections. */
  const former = new Set<Server<undefined>>();
  try {
    server = listen(port, tls);
  } catch (thrown) {
    const cause = thrown as Error;
    throw new AegisError("unavailable", `cannot listen on port ${port} for the REST API: ${cause.message}`, {
      cause,
      hint: "another program may use it; stop that one or choose another with --port",
    });
  }
  const bound = server.port ?? port;
  return {
    port: bound,
    renew(next) {
      const before = server;
      former.add(before);
      void before.stop(false).then(() => former.delete(before));
      server = listen(bound, next);
    },
    async close(now) {
      await Promise.all([server, ...former].map((one) => one.stop(now)));
    },
  };
}
