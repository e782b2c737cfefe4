import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash, generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { releaseKey } from "../install/release-key.ts";
import { fetchArchive, folderSource, offered, webSource } from "../src/release/source.ts";
import { archiveFor, readSums } from "../src/release/sums.ts";
import { executableIn, packageManagerOf, placeExecutable, previousPath, rollBack } from "../src/release/swap.ts";

const folder = mkdtempSync(join(tmpdir(), "aegis-release-"));
const key = releaseKey({});
const stranger = releaseKey({ AEGIS_RELEASE_KEY: newKey() });
const name = "aegis-0.2.0-linux-x64.tar.gz";
const signal = new AbortController().signal;

function newKey(): string {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return privateKey.export({ format: "pem", type: "pkcs8" }).toString();
}

const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const bytes = (text: string) => new TextEncoder().encode(text);

beforeAll(async () => {
  const files = { "aegis-0.2.0-linux-x64/aegis": "the new one", "aegis-0.2.0-linux-x64/bulk": randomBytes(4 << 20) };
  const archive = await new Bun.Archive(files, { compress: "gzip" }).bytes();
  writeFileSync(join(folder, name), archive);
  const sums = `${digest(archive)}  ${name}\n${"0".repeat(64)}  manifest.json\n`;
  writeFileSync(join(folder, "SHA256SUMS"), sums);
  writeFileSync(join(folder, "SHA256SUMS.sig"), key.sign(bytes(sums)));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a list of files", () => {
  const sums = bytes(
    `${"a".repeat(64)}  aegis-1.2.3-linux-x64.tar.gz\n${"b".repeat(64)}  aegis-1.2.3-windows-x64.zip\n`,
  );

  test("is believed only when the release key signed exactly these bytes", () => {
    expect(readSums(sums, key.sign(sums), key.publicPem, "x").size).toBe(2);
    const altered = Uint8Array.from(sums);
    altered[0] = 0x62;
    expect(() => readSums(altered, key.sign(sums), key.publicPem, "here")).toThrow("here: SHA256SUMS is not signed");
    expect(() => readSums(sums, stranger.sign(sums), key.publicPem, "x")).toThrow("not signed");
    expect(() => readSums(sums, new Uint8Array(), key.publicPem, "x")).toThrow("not signed");
  });

  test("with a line that is no entry, or one name twice, is refused as a whole", () => {
    for (const text of [
      "nonsense\n",
      `${"a".repeat(64)}  ../../etc/passwd\n`,
      `${"a".repeat(64)}  x\n${"b".repeat(64)}  x\n`,
    ])
      expect(() => readSums(bytes(text), key.sign(bytes(text)), key.publicPem, "x")).toThrow("cannot be read");
  });

  test("names the archive and the version of each target, and what there is when one is missing", () => {
    const list = readSums(sums, key.sign(sums), key.publicPem, "x");
    expect(archiveFor(list, "linux-x64", "x")).toMatchObject({ version: "1.2.3", sha256: "a".repeat(64) });
    expect(archiveFor(list, "windows-x64", "x").name).toBe("aegis-1.2.3-windows-x64.zip");
    expect(() => archiveFor(list, "darwin-arm64", "x")).toThrow(
      "no archive for darwin-arm64; it has: aegis-1.2.3-linux-x64.tar.gz",
    );
  });
});

describe("a download", () => {
  function mirror() {
    const ranges: (string | null)[] = [];
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        const wanted = new URL(request.url).pathname.replace("/releases/latest/", "");
        if (!/^[\w.-]+$/.test(wanted) || !Bun.file(join(folder, wanted)).size)
          return new Response("no", { status: 404 });
        const content = readFileSync(join(folder, wanted));
        if (wanted !== name) return new Response(content);
        const range = request.headers.get("range");
        ranges.push(range);
        const from = Number(/bytes=(\d+)-/.exec(range ?? "")?.[1] ?? 0);
        if (range) return new Response(content.subarray(from), { status: 206 });
        return new Response(content);
      },
    });
    return { url: `http://127.0.0.1:${server.port}`, ranges, stop: () => server.stop(true) };
  }

  test("from a folder or an address is checked against the signed digest", async () => {
    const web = mirror();
    const target = mkdtempSync(join(folder, "to-"));
    for (const source of [folderSource(folder), webSource(`${web.url}/`, null, signal)]) {
      const artefact = await offered(source, "linux-x64", key.publicPem);
      expect(artefact).toEqual({ name, version: "0.2.0", sha256: digest(readFileSync(join(folder, name))) });
      const path = await fetchArchive(source, artefact, target);
      expect(Buffer.from(await executableIn(path)).toString()).toBe("the new one");
      await expect(fetchArchive(source, { ...artefact, sha256: "0".repeat(64) }, target)).rejects.toThrow(
        "is not what its release signed",
      );
    }
    await expect(offered(webSource(web.url, "9.9.9", signal), "linux-x64", key.publicPem)).rejects.toThrow(
      "/releases/v9.9.9/SHA256SUMS answered 404",
    );
    web.stop();
    await expect(offered(webSource(web.url, null, signal), "linux-x64", key.publicPem)).rejects.toThrow("cannot fetch");
  });

  test("that was cut off goes on where it stopped", async () => {
    const content = readFileSync(join(folder, name));
    const half = content.length >> 1;
    const cutter = createServer((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${content.length}\r\nconnection: close\r\n\r\n`);
      socket.end(content.subarray(0, half));
    });
    await new Promise<void>((resolve) => cutter.listen(0, "127.0.0.1", resolve));
    const { port } = cutter.address() as AddressInfo;
    const target = mkdtempSync(join(folder, "to-"));
    const artefact = { name, version: "0.2.0", sha256: digest(content) };
    await expect(fetchArchive(webSource(`http://127.0.0.1:${port}`, null, signal), artefact, target)).rejects.toThrow();
    cutter.close();
    const have = statSync(join(target, `${name}.part`)).size;
    expect(have).toBeGreaterThan(0);

    const web = mirror();
    const path = await fetchArchive(webSource(web.url, null, signal), artefact, target);
    expect(readFileSync(path).equals(content)).toBe(true);
    expect(web.ranges).toEqual([`bytes=${have}-`]);
    web.stop();
  });
});

describe("the executable", () => {
  test("is replaced in one step behind its link, kept as .previous, and comes back", async () => {
    const place = mkdtempSync(join(folder, "bin-"));
    const real = join(place, "aegis-real");
    const link = join(place, "aegis");
    writeFileSync(real, "old", { mode: 0o755 });
    symlinkSync("aegis-real", link);
    const before = statSync(real).ino;
    await placeExecutable(link, bytes("new"));
    expect(readFileSync(link, "utf8")).toBe("new");
    expect(statSync(real).ino).not.toBe(before);
    expect(statSync(real).mode & 0o777).toBe(0o755);
    expect(readFileSync(previousPath(real), "utf8")).toBe("old");
    expect(await rollBack(link)).toBe(true);
    expect(readFileSync(real, "utf8")).toBe("old");
    expect(await rollBack(link)).toBe(false);
  });

  test("that Homebrew owns is told from one of ours", async () => {
    expect(await packageManagerOf("/opt/homebrew/Cellar/aegis-cli/0.1.0/bin/aegis")).toBe("homebrew");
    expect(await packageManagerOf("/home/linuxbrew/.linuxbrew/bin/aegis")).toBe("homebrew");
    expect(await packageManagerOf("/usr/local/bin/aegis")).toBeNull();
  });
});
