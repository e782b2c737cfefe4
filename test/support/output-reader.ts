/**
 * A client of its own, which can be stopped or slow: runs one command and prints one line of JSON when it has read the first
 * of its output, and one at the end. `bun test/support/output-reader.ts URL HOST SCRIPT [BYTES_A_SECOND]`, with AEGIS_USER_TOKEN.
 */
import { createHash } from "node:crypto";
import { createApiClient } from "../../src/api/client.ts";
import { Secret } from "../../src/platform/log.ts";

/** The last line. */
export interface OutputRead {
  bytes: number;
  /** Events that carried output: one for each frame. */
  events: number;
  skipped: number;
  /** From the first of the output to the result. */
  seconds: number;
  sha256: string;
  ok: boolean;
  output: string;
}

/** Waits until `bytes` since `began`, in ms of performance.now(), are no more than `bytesASecond`. */
export async function keepPace(bytes: number, began: number, bytesASecond: number): Promise<void> {
  const early = (bytes / bytesASecond) * 1000 - (performance.now() - began);
  if (early > 0) await Bun.sleep(early);
}

async function main([url = "", node = "", script = "", pace]: readonly string[]): Promise<void> {
  const bytesASecond = pace === undefined ? Number.POSITIVE_INFINITY : Number(pace);
  const api = createApiClient({ url, token: new Secret(process.env.AEGIS_USER_TOKEN ?? ""), caPem: null });
  const hash = createHash("sha256");
  const read = { bytes: 0, events: 0, skipped: 0 };
  let began = performance.now();
  const args = { command: "/bin/sh", args: ["-c", script] };
  const request = {
    target: { Node: node },
    tool: "cmd.run",
    context: "operator",
    args,
    policy: { deadline_secs: 300 },
  };
  for await (const { event, data } of api.invoke(request, { signal: AbortSignal.timeout(300_000) })) {
    if (event === "command_progress") {
      const chunk = Buffer.from(data.data ?? data.base64 ?? "", data.data === undefined ? "base64" : "utf8");
      if (read.bytes === 0) {
        began = performance.now();
        console.log(JSON.stringify({ begun: true }));
      }
      hash.update(chunk);
      read.bytes += chunk.length;
      read.events++;
      read.skipped += data.skipped_bytes;
      await keepPace(read.bytes, began, bytesASecond);
    }
    if (event === "command_result") {
      const seconds = (performance.now() - began) / 1000;
      const { ok, output } = data;
      console.log(JSON.stringify({ ...read, seconds, sha256: hash.digest("hex"), ok, output } satisfies OutputRead));
    }
  }
}

if (import.meta.main) await main(process.argv.slice(2));
