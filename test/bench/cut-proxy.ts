/** A proxy that does what CONNECT asks for and can cut everything it carries, as networks do. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export interface CutProxy {
  url: string;
  /** Ends every connection at once. */
  cut(): void;
  close(): Promise<void>;
}

export async function cutProxy(): Promise<CutProxy> {
  const open = new Set<Socket>();
  const keep = (socket: Socket) => {
    open.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => open.delete(socket));
  };
  const server = createServer((client) => {
    keep(client);
    client.once("data", (head: Buffer) => {
      const [, host = "", port = ""] = /^CONNECT ([^:\s]+):(\d+) /.exec(head.toString("latin1")) ?? [];
      const far = connect({ host, port: Number(port) }, () => {
        client.write("HTTP/1.1 200 OK\r\n\r\n");
        client.pipe(far).pipe(client);
      });
      keep(far);
      far.on("close", () => client.destroy());
      client.on("close", () => far.destroy());
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => {
    for (const socket of open) socket.destroy();
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut,
    async close() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
