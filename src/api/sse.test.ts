import { expect, test } from "bun:test";
import { formatSse, parseSse, type SseMessage, sseComment } from "./sse.ts";

async function parse(...chunks: Uint8Array[]): Promise<SseMessage[]> {
  async function* source() {
    yield* chunks;
  }
  return await Array.fromAsync(parseSse(source()));
}
const bytes = (text: string) => new Uint8Array(Buffer.from(text));

const sent = [
  { id: 1, event: "started", data: { text: "naïve 🦀\n" } },
  { id: 7, event: "done", data: { ok: true } },
];
const text = `${sent[0] ? formatSse(sent[0]) : ""}${sseComment}${sent[1] ? formatSse(sent[1]) : ""}`;
const expected = sent.map(({ id, event, data }) => ({ id: String(id), event, data: JSON.stringify(data) }));

test("what is written is read, wherever the bytes are cut", async () => {
  const all = bytes(text);
  for (let cut = 0; cut <= all.length; cut++) expect(await parse(all.slice(0, cut), all.slice(cut))).toEqual(expected);
  expect(await parse(...Array.from(all, (byte) => new Uint8Array([byte])))).toEqual(expected);
});

test("line ends of any kind, fields without a space, several data lines and unknown fields are taken", async () => {
  const odd = "id:1\r\nevent:a\r\ndata:x\r\ndata: y\r\nretry: 10\r\n\r\ndata\r\rdata: z\n\n";
  expect(await parse(bytes(odd))).toEqual([
    { id: "1", event: "a", data: "x\ny" },
    { id: "1", event: "message", data: "" },
    { id: "1", event: "message", data: "z" },
  ]);
});

test("a block that a lost connection left unfinished is not told", async () => {
  expect(await parse(bytes("id: 1\nevent: a\ndata: {}\n"))).toEqual([]);
});

test("a block without end is refused before it fills the memory", async () => {
  async function* endless() {
    for (;;) yield bytes("x".repeat(1024 * 1024));
  }
  await expect(Array.fromAsync(parseSse(endless()))).rejects.toThrow("too long");
});
