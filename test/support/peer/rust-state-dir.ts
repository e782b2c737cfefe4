/** A state directory as the Rust CLI leaves it behind after enrolling: its file names, its config, and a token that lives an hour. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { PeerKey } from "./envelope.ts";

export interface RustStateDir {
  seed: Uint8Array;
  key: PeerKey;
  nodeId: string;
  /** As the enrollment token's `cep` had it: often a bare host and port. */
  endpoint: string;
  /** YAML that its owner wrote, in the place of the template's `security_contexts`. */
  contexts: string;
  /** More lines of `spec.cluster.controller`, of `spec.cluster` and of `spec`. */
  controller?: string;
  cluster?: string;
  spec?: string;
}

/** `node.token` as minted after ChallengeNode: RS256, an hour, and a signature in plain base64. */
function rustToken(nodeId: string): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const iat = Math.floor(Date.now() / 1000);
  const claims = {
    ...{ sub: nodeId, role: "edge", cap_hash: "c3ea079996570c7468b480eea19d9923e19893e429020b7df6a8da7139e5b545" },
    ...{ iat, exp: iat + 3600, tid: "acme", cep: "controller.example:50056" },
  };
  return `${part({ alg: "RS256", typ: "JWT" })}.${part(claims)}.${Buffer.alloc(256, 0xfb).toString("base64")}`;
}

export async function writeRustStateDir(dir: string, options: RustStateDir): Promise<{ token: string }> {
  const { seed, key, nodeId, endpoint, contexts, controller = "", cluster = "", spec = "" } = options;
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const token = rustToken(nodeId);
  const config = `apiVersion: 100monkeys.ai/v1
kind: NodeConfig
metadata:
  name: aegis-edge
spec:
  node:
    id: ${nodeId}
    type: edge
  cluster:
    enabled: true
    role: edge
    controller:
      endpoint: ${endpoint}
${controller}
    node_keypair_path: ${dir}/node.key
    heartbeat_interval_secs: 1
${cluster}
    edge:
      tenant_id: acme
      enrollment_token_path: ${dir}/enrollment.jwt
      node_security_token_path: ${dir}/node.token
      stream_reconnect_backoff_secs: [1, 2, 5, 15, 60]
      capabilities:
        os: linux
        arch: x86_64
        local_tools: [shell]
        mount_points: ["/"]
        custom_labels: {}
${spec}
  security_contexts:
${contexts}
`;
  await writeFile(join(dir, "node.key"), seed, { mode: 0o600 });
  await writeFile(join(dir, "node.pub"), key.publicKey, { mode: 0o644 });
  await writeFile(join(dir, "node.token"), token, { mode: 0o600 });
  await writeFile(join(dir, "enrollment.jwt"), "x.y.z", { mode: 0o600 });
  await writeFile(join(dir, "aegis-config.yaml"), config, { mode: 0o600 });
  return { token };
}
