/**
 * Many hosts in one process, for the bench of scale: the daemon's own session, outbox and story of a call, each over a TLS
 * connection of its own. Told what to be by a file; tells how many are connected, once a second, as lines of JSON.
 */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import net from "node:net";
import { callLimits } from "../../src/daemon/call-limits.ts";
import { encodeCapabilities } from "../../src/daemon/capabilities.ts";
import { grpcLink } from "../../src/daemon/grpc-link.ts";
import { createInvocations } from "../../src/daemon/invocations.ts";
import { operatorChallenges } from "../../src/daemon/operator-challenges.ts";
import { createOperators } from "../../src/daemon/operators.ts";
import { createOutbox } from "../../src/daemon/outbox.ts";
import { replayGuard } from "../../src/daemon/replay.ts";
import { runSession } from "../../src/daemon/session.ts";
import { supervise } from "../../src/daemon/supervise.ts";
import { type TrustedKeyset, trustFirst } from "../../src/envelope/keyset.ts";
import { importSigningKey } from "../../src/envelope/public-key.ts";
import { userVerifier } from "../../src/envelope/user.ts";
import { AegisError } from "../../src/errors.ts";
import { systemClock as clock } from "../../src/platform/clock.ts";
import { silentLog as log } from "../../src/platform/log.ts";
import { securityContextsSchema } from "../../src/policy/context.ts";
import { operatorContext } from "../../src/policy/written-contexts.ts";
import { fsTools } from "../../src/tools/fs-tools.ts";
import { createRegistry } from "../../src/tools/registry.ts";
import { nothingCaptured, type Tool } from "../../src/tools/tool.ts";

export interface SwarmHost {
  nodeId: string;
  name: string;
  /** base64url, 32 bytes. */
  seed: string;
  token: string;
}

export interface SwarmInput {
  port: number;
  tenantId: string;
  caPem: string;
  /** base64url each. */
  rootKeyId: string;
  signedKeyset: string;
  hosts: SwarmHost[];
  backoffScheduleMs: number[];
}

/** What a worker says once a second. */
export interface SwarmReport {
  connected: number;
  /** Why a session ended or could not begin, the last one; empty before the first. */
  lastFailure: string;
}

/** Does nothing, as quickly as a tool can. */
const nothing: Tool = {
  descriptor: {
    ...{ name: "bench.nothing", description: "Does nothing.", inputSchema: { type: "object" } },
    ...{ readOnly: true, destructive: false, fleetCapable: true },
  },
  prepare: async () => ({
    kind: "ready",
    call: {
      accesses: [],
      run: async () => ({ ok: true, exitCode: 0, stdout: nothingCaptured, stderr: nothingCaptured }),
    },
  }),
};

/** Dials of one process at a time: as many hosts as there are would never dial in one moment. */
const dialsAtOnce = 32;

/** Every dial comes from another address of loopback, as hosts do: the controller counts who waits at its door by address. */
function dialFromManyAddresses(): void {
  const { connect } = net;
  let dials = process.pid;
  const from = () => `127.${1 + ((dials >> 16) & 63)}.${(dials >> 8) & 255}.${1 + (dials++ & 127)}`;
  const elsewhere = (options: net.TcpNetConnectOpts, connected?: () => void) =>
    connect({ ...options, localAddress: from() }, connected);
  Object.assign(net, { connect: elsewhere });
}

async function main(input: SwarmInput): Promise<void> {
  dialFromManyAddresses();
  const trusted = trustFirst(Buffer.from(input.rootKeyId, "base64url"), [Buffer.from(input.signedKeyset, "base64url")]);
  if (trusted.kind === "refused") throw new Error(trusted.reason);
  const registry = createRegistry([nothing, ...fsTools({ clock })]);
  const contexts = new Map(securityContextsSchema.parse([operatorContext()]).map((one) => [one.name, one]));
  const report: SwarmReport = { connected: 0, lastFailure: "" };
  const stop = new AbortController();
  process.on("SIGTERM", () => stop.abort());

  async function host({ nodeId, name, seed, token }: SwarmHost): Promise<void> {
    const { tenantId } = input;
    const nodeKey = importSigningKey(Buffer.from(seed, "base64url"));
    let keyset: TrustedKeyset = trusted.kind === "refused" ? (undefined as never) : trusted.keyset;
    const operators = createOperators({
      ...{ nodeId, tenantId, hostName: name, nodeKey: () => nodeKey, now: clock.now },
      policy: () => ({ trusted: [], contexts: [] }),
      challenges: operatorChallenges(),
    });
    const outbox = createOutbox({ nodeId, nodeKey: () => nodeKey, clock, log });
    const users = userVerifier({ ...keyset, tenantId });
    const invocations = createInvocations({
      ...{ outbox, clock, log, maxConcurrent: 16 },
      host: () => ({
        ...{ nodeId, tenantId, users, contexts, operators, tools: registry, replay, limits },
        ...{ requireOperatorSignature: false, paused: () => false, hidden: () => null },
        ...{ protectedPaths: [], home: "/" },
      }),
    });
    const replay = replayGuard(clock);
    const limits = callLimits(clock);
    const capabilities = encodeCapabilities({
      ...{ os: "linux", arch: "x86_64", localTools: ["bash", "git", "shell"], mountPoints: ["/"], customLabels: {} },
      ...{ hostName: name, heartbeatIntervalMs: 30_000, tools: registry.list() },
    });
    const tls = { pins: [], caPem: input.caPem, serverName: "localhost", clientCertificate: null, proxy: null };
    const link = grpcLink({ host: "127.0.0.1", port: input.port, tls });
    let isConnected = false;
    const connected = (now: boolean) => {
      if (now !== isConnected) report.connected += now ? 1 : -1;
      isConnected = now;
    };
    await supervise(
      async (signal) => {
        try {
          return await runSession(
            {
              ...{ link, clock, log, nodeId, nodeKey, nodeToken: token, outbox, invocations, operators },
              heartbeatIntervalMs: 30_000,
              keyset: () => keyset,
              async saveKeyset(newer) {
                keyset = newer;
              },
              capabilities: () => capabilities,
              settings: { maxConcurrent: 16, apply() {}, reset() {} },
              newStreamId: randomUUID,
              onState: ({ kind }) => connected(kind !== "connecting"),
              onShutdown() {},
            },
            signal,
          );
        } finally {
          connected(false);
        }
      },
      {
        ...{ clock, healthyAfterMs: 60_000, signal: stop.signal },
        backoff: { scheduleMs: input.backoffScheduleMs, random: Math.random },
        onRetry({ cause }) {
          report.lastFailure = AegisError.from(cause).message;
        },
      },
    );
    link.close();
  }

  const tell = setInterval(() => console.log(JSON.stringify(report)), 1_000);
  const all: Promise<void>[] = [];
  for (const [index, one] of input.hosts.entries()) {
    all.push(host(one));
    while (!stop.signal.aborted && index + 1 - report.connected > dialsAtOnce) await Bun.sleep(5);
  }
  await Promise.all(all);
  clearInterval(tell);
}

if (import.meta.main) await main(JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")));
