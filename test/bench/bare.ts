/** What the transport alone costs: grpc-js on Bun over TLS in one process, its connections in another. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeCertificate } from "../support/certificates.ts";
import { memoryOf } from "./site.ts";

export interface BareTransport {
  streams: number;
  rssMb: number;
  perStreamKib: number;
  /** Streams that were open, and the server's memory then. */
  growth: [number, number][];
}

const quiet = { stdin: "ignore", stdout: "pipe", stderr: "inherit" } as const;
const script = (name: string): string[] => [process.execPath, join(import.meta.dir, name)];

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    yield* lines;
  }
}

export async function bareTransport(streams: number): Promise<BareTransport> {
  const folder = mkdtempSync(join(tmpdir(), "aegis-bare-"));
  const children: Bun.Subprocess[] = [];
  try {
    const authority = await makeCertificate({ name: "bench", ca: true });
    const leaf = await makeCertificate({ name: "localhost", issuer: authority, hosts: ["localhost"] });
    const [key, certificate, ca] = ["key.pem", "leaf.pem", "ca.pem"].map((name) => join(folder, name));
    writeFileSync(key ?? "", leaf.keyPem, { mode: 0o600 });
    writeFileSync(certificate ?? "", leaf.pem);
    writeFileSync(ca ?? "", authority.pem);
    const server = Bun.spawn([...script("bare-server.ts"), key ?? "", certificate ?? ""], quiet);
    children.push(server);
    const { value: port = "" } = await linesOf(server.stdout).next();
    await Bun.sleep(500);
    const empty = memoryOf(server.pid).rssMb;
    const growth: [number, number][] = [[0, empty]];
    const clients = Bun.spawn([...script("bare-clients.ts"), port, ca ?? "", `${streams}`], quiet);
    children.push(clients);
    for await (const open of linesOf(clients.stdout)) {
      growth.push([Number(open), memoryOf(server.pid).rssMb]);
      if (Number(open) === streams) break;
    }
    await Bun.sleep(streams > 1_000 ? 5_000 : 0);
    const { rssMb } = memoryOf(server.pid);
    return { streams, rssMb, perStreamKib: ((rssMb - empty) * 1024) / streams, growth };
  } finally {
    for (const child of children) child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
}
