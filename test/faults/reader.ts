/**
 * A client of its own, which can be stopped: runs one command and prints one line of JSON when it has read the first of its
 * output, and one at the end. `bun test/faults/reader.ts URL HOST SCRIPT`, with AEGIS_USER_TOKEN.
 */
import { createHash } from "node:crypto";
import { createApiClient } from "../../src/api/client.ts";
import { Secret } from "../../src/platform/log.ts";

const [url = "", node = "", script = ""] = process.argv.slice(2);
const api = createApiClient({ url, token: new Secret(process.env.AEGIS_USER_TOKEN ?? ""), caPem: null });
const hash = createHash("sha256");
const read = { bytes: 0, skipped: 0 };
const args = { command: "/bin/sh", args: ["-c", script] };
const request = { target: { Node: node }, tool: "cmd.run", context: "operator", args, policy: { deadline_secs: 300 } };
for await (const { event, data } of api.invoke(request, { signal: AbortSignal.timeout(300_000) })) {
  if (event === "command_progress") {
    const chunk = Buffer.from(data.data ?? data.base64 ?? "", data.data === undefined ? "base64" : "utf8");
    if (read.bytes === 0) console.log(JSON.stringify({ begun: true }));
    hash.update(chunk);
    read.bytes += chunk.length;
    read.skipped += data.skipped_bytes;
  }
  if (event === "command_result")
    console.log(JSON.stringify({ ...read, sha256: hash.digest("hex"), ok: data.ok, output: data.output }));
}
