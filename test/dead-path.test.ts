/** A connection that dies without a word is noticed by the daemon, by real pings over a relay that stops passing anything on. */
import { expect, test } from "bun:test";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { Server, ServerCredentials, type ServiceDefinition } from "@grpc/grpc-js";
import { grpcLink, patience } from "../src/daemon/grpc-link.ts";
import type { StreamEnd } from "../src/daemon/link.ts";
import { clusterService } from "../src/wire/service.ts";

test("a path that dies without a word is noticed by a ping that nobody answers, and not before", async () => {
  const server = new Server();
  server.addService({ connectEdge: clusterService.connectEdge } as unknown as ServiceDefinition, {
    connectEdge: (call: { write(command: object): void; on(event: "data", listener: () => void): void }) =>
      call.on("data", () => call.write({ drain: {} })),
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  let isDead = false;
  const sockets: Socket[] = [];
  const relay = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on("data", (bytes) => isDead || to.write(bytes));
      from.on("error", () => to.destroy());
    }
    sockets.push(near, far);
  });
  await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
  const link = grpcLink({
    host: "127.0.0.1",
    port: (relay.address() as AddressInfo).port,
    tls: null,
    silence: { pingAfterMs: 100, answerWithinMs: 200 },
  });
  try {
    let ended: StreamEnd | null = null;
    const ending = Promise.withResolvers<StreamEnd>();
    const answered = Promise.withResolvers<void>();
    const stream = await link.open(
      {
        onCommand: () => answered.resolve(),
        onEnd: (end) => {
          ended = end;
          ending.resolve(end);
        },
      },
      new AbortController().signal,
    );
    stream.send({ heartbeat: {} });
    await answered.promise;
    await Bun.sleep(800); // several pings, each of them answered
    expect(ended).toBeNull();
    const since = performance.now();
    isDead = true;
    expect(await ending.promise).toMatchObject({ status: 14 });
    expect(performance.now() - since).toBeLessThan(5_000);
  } finally {
    link.close();
    for (const socket of sockets) socket.destroy();
    relay.close();
    server.forceShutdown();
  }
});

test("the daemon's own patience is over within 30 s", () => {
  expect(patience.pingAfterMs + patience.answerWithinMs).toBeLessThan(30_000);
});
