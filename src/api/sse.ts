/** Server-sent events, written and read: blocks of `id:`, `event:` and `data:` lines, and comments that keep a connection alive. */

export interface SseMessage {
  id: string;
  event: string;
  data: string;
}

/** One block. `data` is JSON text, which has no line breaks of its own. */
export const formatSse = ({ id, event, data }: { id: number; event: string; data: unknown }): string =>
  `id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;

/** Says nothing, so that no proxy takes the connection for dead. */
export const sseComment = ": still here\n\n";

/** Longest block that is taken, in characters: two pipes of a result in base64, and room. */
const maxBlockChars = 16 * 1024 * 1024;

/** Messages of a stream that may be cut anywhere, also inside a character. What a lost connection left unfinished is dropped. */
export async function* parseSse(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<SseMessage> {
  const decoder = new TextDecoder();
  let rest = "";
  let message: SseMessage = { id: "", event: "message", data: "" };
  let hasData = false;
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    // A lone \r at the end may be half of a \r\n.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    if (rest.length + message.data.length > maxBlockChars) throw new RangeError("an event of the stream is too long");
    for (const line of lines) {
      if (line === "") {
        if (hasData) yield message;
        // The id stays until another comes.
        message = { id: message.id, event: "message", data: "" };
        hasData = false;
        continue;
      }
      const [, field = "", value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
      if (field === "id") message.id = value;
      else if (field === "event") message.event = value;
      else if (field === "data") {
        message.data = hasData ? `${message.data}\n${value}` : value;
        hasData = true;
      }
    }
  }
}
