/** What a call cannot do without, each by itself and without a line of ours: the floor under the other figures. */
import { closeSync, fdatasyncSync, openSync, readdirSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Client, credentials, Server, ServerCredentials, type ServerDuplexStream } from "@grpc/grpc-js";
import { loadTls } from "../../src/controller/tls.ts";
import type { Host } from "../support/installation.ts";
import { timed } from "./bench.ts";
import type { BenchSite } from "./site.ts";

const path = "/bench.Bare/Talk";
const asIs = (bytes: Buffer): Buffer => bytes;
/** A message as long as this is counted, a shorter one sent back. */
const chunkBytes = 32 * 1024;

export interface BareGrpc {
  /** Milliseconds from a small message to its answer. */
  roundTrips(rounds: number): Promise<number[]>;
  /** Sends so much in messages of 32 KiB, and waits until all of it has arrived. */
  send(mib: number): Promise<void>;
  stop(): void;
}

/** grpc-js over TLS with the site's own certificate, and a process at either end. */
export async function bareGrpc(site: BenchSite): Promise<BareGrpc> {
  const dataDir = join(site.server.home, ".aegis/controller");
  const { caPem } = await loadTls(dataDir);
  const server = Bun.spawn([process.execPath, import.meta.path, dataDir], { stdout: "pipe", stderr: "inherit" });
  const { value } = await server.stdout.getReader().read();
  const port = new TextDecoder().decode(value).trim();
  const client = new Client(`localhost:${port}`, credentials.createSsl(Buffer.from(caPem ?? "")));
  const call = client.makeBidiStreamRequest<Buffer, Buffer>(path, asIs, asIs);
  call.on("error", () => {}); // cancelled at the end
  const ask = (text: string) =>
    new Promise<void>((resolve) => {
      call.once("data", () => resolve());
      call.write(Buffer.from(text));
    });
  return {
    roundTrips: (rounds) => timed(rounds, () => ask("there and back")),
    async send(mib) {
      const chunk = Buffer.alloc(chunkBytes, "a");
      for (let sent = 0; sent < mib * 32; sent++)
        if (!call.write(chunk)) await new Promise<void>((resolve) => call.once("drain", () => resolve()));
      await ask("all of it");
    },
    stop() {
      call.cancel();
      client.close();
      server.kill();
    },
  };
}

async function serve(dataDir: string): Promise<void> {
  const { certPem, keyPem } = await loadTls(dataDir);
  const server = new Server();
  const kind = { path, requestStream: true, responseStream: true } as const;
  const codec = {
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
  server.addService(
    { talk: { ...kind, ...codec } },
    {
      talk: (call: ServerDuplexStream<Buffer, Buffer>) =>
        call.on("data", (message: Buffer) => {
          if (message.length < chunkBytes) call.write(message);
        }),
    },
  );
  const identity = { cert_chain: Buffer.from(certPem), private_key: Buffer.from(keyPem) };
  server.bindAsync("localhost:0", ServerCredentials.createSsl(null, [identity]), (error, port) => {
    if (error) throw error;
    console.log(port);
  });
}

/** Milliseconds to have 4 KiB on the disk that the controller writes to. */
export async function diskWrites(site: BenchSite, rounds: number): Promise<number[]> {
  const file = join(site.server.home, "floor");
  const descriptor = openSync(file, "w");
  const page = Buffer.alloc(4096, "a");
  for (let at = 0; at < 256; at++) writeSync(descriptor, page);
  try {
    return await timed(rounds, () => {
      writeSync(descriptor, page, 0, page.length, 0);
      fdatasyncSync(descriptor);
    });
  } finally {
    closeSync(descriptor);
    rmSync(file);
  }
}

/** The program that confines a tool and stays with it, without its Landlock; null where it was not built. */
export function launcherOf({ stateDir }: Host): string | null {
  const run = join(stateDir, "run");
  const name = readdirSync(run).find((one) => one.startsWith("aegis-launch-"));
  return name === undefined ? null : join(run, name);
}

if (import.meta.main) await serve(process.argv[2] ?? "");
