import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash, generateKeyPairSync, randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { installer, signedBy } from "../install/release.ts";
import { releaseKey } from "../install/release-key.ts";
import { systemClock } from "../src/platform/clock.ts";
import { systemProgram } from "../src/platform/system-program.ts";
import { fetchArchive, folderSource, offered, webSource } from "../src/release/source.ts";
import { archiveFor, readSums } from "../src/release/sums.ts";
import { executableIn, packageManagerOf, placeExecutable, previousPath, rollBack } from "../src/release/swap.ts";
import { look, take, type UpdateOptions } from "../src/release/update.ts";
import { needs } from "./support/needs.ts";

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

describe("the key", () => {
  const pem = newKey();

  test("comes from a file, else from the environment, else it is one that everybody knows, and the manifest says which", () => {
    const path = join(folder, "release-key.pem");
    writeFileSync(path, pem);
    const own = releaseKey({ AEGIS_RELEASE_KEY: pem });
    expect(releaseKey({ AEGIS_RELEASE_KEY_FILE: path, AEGIS_RELEASE_KEY: newKey() }).publicPem).toBe(own.publicPem);
    expect([signedBy(own), signedBy(key)]).toEqual([
      "the project's release key",
      "the test key that everybody knows: not for use",
    ]);
    for (const name of ["install.sh", "install.ps1"]) {
      expect(installer(name, own)).toContain(own.publicPem.trim());
      expect(installer(name, own)).not.toContain(key.publicPem.trim());
    }
  });

  test("that is empty or on another curve is refused by name", () => {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-384" });
    const other = privateKey.export({ format: "pem", type: "pkcs8" }).toString();
    expect(() => releaseKey({ AEGIS_RELEASE_KEY: other })).toThrow("is not an EC key on P-256");
    for (const name of ["AEGIS_RELEASE_KEY", "AEGIS_RELEASE_KEY_FILE"])
      expect(() => releaseKey({ [name]: "" })).toThrow(`${name} is empty`);
  });

  needs("command:openssl")("makes signatures that plain openssl verifies, in the one form that DER allows", () => {
    for (const [at, signer] of [key, releaseKey({ AEGIS_RELEASE_KEY: pem })].entries())
      for (let index = 0; index < 40; index++) {
        const [message, place] = [bytes(`message ${index}`), join(folder, `signed-${at}`)];
        const der = Buffer.from(signer.sign(message));
        // SEQUENCE of two INTEGERs without a needless zero, and nothing after it: what strict readers ask for.
        const [r, s] = [der.subarray(4, 4 + (der[3] ?? 0)), der.subarray(6 + (der[3] ?? 0))];
        expect(der[0] === 0x30 && der[1] === der.length - 2 && der[2] === 2 && der[4 + r.length] === 2).toBe(true);
        expect(der[5 + r.length]).toBe(s.length);
        for (const [first = 0, second = 0] of [r, s])
          expect(first < 0x80 && (first !== 0 || second >= 0x80)).toBe(true);
        if (index > 4) continue;
        writeFileSync(`${place}.pem`, signer.publicPem);
        writeFileSync(`${place}.sig`, der);
        const verify = ["openssl", "dgst", "-sha256", "-verify", `${place}.pem`, "-signature", `${place}.sig`];
        expect(Bun.spawnSync(verify, { stdin: message }).stdout.toString()).toBe("Verified OK\n");
      }
  });
});

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

  test("whose beginning on disk is longer than the file starts over", async () => {
    const content = readFileSync(join(folder, name));
    const asked: (string | null)[] = [];
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        const range = request.headers.get("range");
        asked.push(range);
        return range ? new Response("too far", { status: 416 }) : new Response(content);
      },
    });
    const target = mkdtempSync(join(folder, "to-"));
    writeFileSync(join(target, `${name}.part`), "x".repeat(100));
    const artefact = { name, version: "0.2.0", sha256: digest(content) };
    const source = webSource(`http://127.0.0.1:${server.port}`, null, signal);
    expect(readFileSync(await fetchArchive(source, artefact, target)).equals(content)).toBe(true);
    expect(asked).toEqual(["bytes=100-", null]);
    server.stop(true);
  });

  test("of a list that never ends is given up, and no address without https is asked", async () => {
    let sent = 0;
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () =>
        new Response(
          new ReadableStream({
            pull(controller) {
              sent += 1 << 16;
              controller.enqueue(new Uint8Array(1 << 16));
            },
          }),
        ),
    });
    await expect(
      offered(webSource(`http://127.0.0.1:${server.port}`, null, signal), "linux-x64", key.publicPem),
    ).rejects.toThrow("SHA256SUMS is longer than 65536 bytes");
    expect(sent).toBeLessThan(64 << 20);
    server.stop(true);
    for (const address of ["http://mirror.example", "http://127.0.0.1.example", "file:///etc", "mirror"])
      expect(() => webSource(address, null, signal)).toThrow("is not an https address");
  });
});

describe("an update", () => {
  /** A release of one executable in a folder of its own, and an older one in its place. */
  async function staged(program: string) {
    const place = mkdtempSync(join(folder, "update-"));
    const executable = join(place, "aegis");
    writeFileSync(executable, "#!/bin/sh\necho aegis 0.1.0\n", { mode: 0o755 });
    const files = { "aegis-0.2.0-linux-x64/aegis": program, "aegis-0.2.0-linux-x64/bulk": randomBytes(1 << 20) };
    const archive = Buffer.from(await new Bun.Archive(files, { compress: "gzip" }).bytes());
    return { place, executable, archive, artefact: { name, version: "0.2.0", sha256: digest(archive) } };
  }

  /** Sends the archive in so many pieces: all but the last end in the middle. */
  function breaking(archive: Buffer, breaks: number) {
    const asked: number[] = [];
    const server = createServer((socket) => {
      socket.on("error", () => {}); // who has enough hangs up
      socket.once("data", (head) => {
        const from = Number(/range: bytes=(\d+)-/i.exec(head.toString())?.[1] ?? 0);
        asked.push(from);
        const rest = archive.subarray(from);
        const status = from > 0 ? "206 Partial Content" : "200 OK";
        socket.write(`HTTP/1.1 ${status}\r\ncontent-length: ${rest.length}\r\nconnection: close\r\n\r\n`);
        socket.end(asked.length <= breaks ? rest.subarray(0, rest.length >> 1) : rest);
      });
    });
    return new Promise<{ url: string; asked: number[]; stop(): void }>((resolve) => {
      server.listen(0, "127.0.0.1", () => {
        const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
        resolve({ url, asked, stop: () => server.close() });
      });
    });
  }

  const options = (executable: string, url: string, downloads: string | null): UpdateOptions => ({
    ...{ executable, current: "0.1.0", target: "linux-x64", publicPem: key.publicPem, pinned: false },
    ...{ source: webSource(url, null, signal), downloads, signal },
    clock: { ...systemClock, sleep: async () => {} },
    run: systemProgram(systemClock),
  });

  test("takes up a download that breaks off, by itself and when it is asked again, and leaves nothing of it", async () => {
    const { place, executable, archive, artefact } = await staged("#!/bin/sh\necho aegis 0.2.0\n");
    const web = await breaking(archive, 5);
    const downloads = join(place, "downloads");
    await expect(take(options(executable, web.url, downloads), artefact)).rejects.toThrow();
    expect(readFileSync(executable, "utf8")).toContain("0.1.0");
    const part = statSync(join(downloads, `${name}.part`)).size;
    expect(part).toBeGreaterThan(0);
    await take(options(executable, web.url, downloads), artefact);
    expect(readFileSync(executable, "utf8")).toContain("0.2.0");
    expect(web.asked[0]).toBe(0);
    expect(web.asked[4]).toBe(part);
    expect(web.asked).toEqual([...web.asked].sort((left, right) => left - right));
    expect(readdirSync(downloads)).toEqual([]);
    expect(statSync(downloads).mode & 0o777).toBe(0o700);
    expect(readdirSync(place).sort()).toEqual(["aegis", "aegis.previous", "downloads"]);
    web.stop();
  });

  test("to an older release is refused unless it was asked for by name", async () => {
    const { executable } = await staged("");
    const source = folderSource(folder);
    const asked = { ...options(executable, "http://127.0.0.1:1", null), source };
    expect(await look(asked)).toMatchObject({ kind: "newer", artefact: { version: "0.2.0" } });
    expect(await look({ ...asked, current: "0.2.0" })).toEqual({ kind: "current", version: "0.2.0" });
    for (const current of ["0.2.1", "0.10.0", "1.0.0-rc.1"]) {
      await expect(look({ ...asked, current })).rejects.toThrow(`0.2.0, which is older than this ${current}`);
      expect(await look({ ...asked, current, pinned: true })).toMatchObject({ kind: "newer" });
    }
    expect(await look({ ...asked, current: "0.2.0-rc.1" })).toMatchObject({ kind: "newer" });
  });

  test("of what Homebrew owns is Homebrew's, and nothing is fetched", async () => {
    const { place, archive, artefact } = await staged("");
    const cellar = join(place, "Cellar/aegis-cli/0.1.0/bin");
    mkdirSync(cellar, { recursive: true });
    writeFileSync(join(cellar, "aegis"), "old");
    symlinkSync(join(cellar, "aegis"), join(place, "linked"));
    const web = await breaking(archive, 0);
    await expect(take(options(join(place, "linked"), web.url, null), artefact)).rejects.toThrow("belongs to Homebrew");
    expect(web.asked).toEqual([]);
    expect(readFileSync(join(cellar, "aegis"), "utf8")).toBe("old");
    web.stop();
  });

  test("to an executable that does not run here, or is another version, changes nothing", async () => {
    for (const [program, words] of [
      ["#!/bin/sh\necho no such library >&2; exit 1\n", "does not run on this machine: no such library"],
      ["#!/bin/sh\necho aegis 0.1.9\n", "does not run on this machine: aegis 0.1.9"],
    ] as const) {
      const { place, executable, archive, artefact } = await staged(program);
      const web = await breaking(archive, 0);
      await expect(take(options(executable, web.url, null), artefact)).rejects.toThrow(words);
      expect(readFileSync(executable, "utf8")).toContain("0.1.0");
      expect(readdirSync(place)).toEqual(["aegis"]);
      web.stop();
    }
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

  test("is written through no link that somebody put beside it", async () => {
    const place = mkdtempSync(join(folder, "bin-"));
    const path = join(place, "aegis");
    const victim = join(place, "victim");
    writeFileSync(path, "old", { mode: 0o755 });
    writeFileSync(victim, "untouched");
    for (const planted of [`${path}.new`, `${previousPath(path)}.new`, previousPath(path)])
      symlinkSync("victim", planted);
    await placeExecutable(path, bytes("new"));
    expect(readFileSync(path, "utf8")).toBe("new");
    expect(readFileSync(victim, "utf8")).toBe("untouched");
  });

  test("that Windows kept running is removed by the next update", async () => {
    const place = mkdtempSync(join(folder, "bin-"));
    const path = join(place, "aegis.exe");
    mkdirSync(join(place, "sub"));
    for (const file of ["aegis.exe", "aegis.exe.running-1712", "other.exe.running-1"])
      writeFileSync(join(place, file), "");
    await placeExecutable(path, bytes("new"));
    expect(existsSync(`${path}.running-1712`)).toBe(false);
    expect(readdirSync(place).sort()).toEqual(["aegis.exe", "aegis.exe.previous", "other.exe.running-1", "sub"]);
  });

  test("that Homebrew owns is told from one of ours", async () => {
    expect(await packageManagerOf("/opt/homebrew/Cellar/aegis-cli/0.1.0/bin/aegis")).toBe("homebrew");
    expect(await packageManagerOf("/home/linuxbrew/.linuxbrew/bin/aegis")).toBe("homebrew");
    expect(await packageManagerOf("/usr/local/bin/aegis")).toBeNull();
  });
});
