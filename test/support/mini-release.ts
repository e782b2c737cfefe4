/** A release of this machine's dist/aegis in the form that `npm run release` gives it, made in a second. */
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { releaseKey } from "../../install/release-key.ts";

const root = join(import.meta.dir, "../..");
export const installScript = join(root, "install/install.sh");

/** Target of this machine as the installer names it. */
export const hostTarget = `${process.platform}-${process.arch}`;

export interface MiniRelease {
  folder: string;
  version: string;
  archive: string;
}

/** `executable` defaults to dist/aegis; `version` is what its archive is called. */
export function miniRelease(version: string, executable = join(root, "dist/aegis")): MiniRelease {
  const folder = mkdtempSync(join(tmpdir(), "aegis-mini-"));
  const name = `aegis-${version}-${hostTarget}`;
  const stage = join(folder, name);
  mkdirSync(stage);
  copyFileSync(executable, join(stage, "aegis"));
  const archive = `${name}.tar.gz`;
  const tar = Bun.spawnSync(["sh", "-c", `tar -cf - ${name} | gzip -1 > ${archive}`], { cwd: folder });
  if (tar.exitCode !== 0) throw new Error(`tar: ${tar.stderr}`);
  rmSync(stage, { recursive: true });
  sign(folder, [archive]);
  chmodSync(folder, 0o755); // other users install from it
  return { folder, version, archive };
}

/** Writes the list of `names` as they lie in `folder`, signed with the key that everybody knows. */
export function sign(folder: string, names: readonly string[]): void {
  const digest = (name: string) =>
    createHash("sha256")
      .update(readFileSync(join(folder, name)))
      .digest("hex");
  const sums = names.map((name) => `${digest(name)}  ${name}\n`).join("");
  writeFileSync(join(folder, "SHA256SUMS"), sums);
  writeFileSync(join(folder, "SHA256SUMS.sig"), releaseKey({}).sign(Buffer.from(sums)));
}

export interface Mirror {
  url: string;
  /** Bytes after which the next archive is cut off; null = never. */
  cutAfter: number | null;
  seen: string[];
  stop(): void;
}

/** Serves release folders as the project's own place does, install scripts by user agent included. */
export function mirror(releases: Readonly<Record<string, string>>): Mirror {
  const state: Mirror = { url: "", cutAfter: null, seen: [], stop: () => void server.stop(true) };
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 60,
    fetch(request) {
      const { pathname } = new URL(request.url);
      state.seen.push(pathname);
      if (pathname === "/") {
        const name = scriptFor(request.headers.get("user-agent") ?? "");
        return new Response(readFileSync(join(root, "install", name)), {
          headers: { "content-type": "text/plain; charset=utf-8" },
        });
      }
      const [, release = "", name = ""] = /^\/releases\/([\w.-]+)\/([\w.+-]+)$/.exec(pathname) ?? [];
      const folder = releases[release];
      const file = folder ? Bun.file(join(folder, name)) : null;
      if (!file || file.size === 0) return new Response("not found\n", { status: 404 });
      if (state.cutAfter === null || !name.includes(".tar.")) return new Response(file);
      return new Response(file.slice(0, state.cutAfter), { headers: { "x-cut": "1" } });
    },
  });
  state.url = `http://127.0.0.1:${server.port}`;
  return state;
}

/** The serving rule for the one address of both scripts: PowerShell gets its own, everybody else the shell's. */
export const scriptFor = (userAgent: string): "install.ps1" | "install.sh" =>
  userAgent.includes("PowerShell") ? "install.ps1" : "install.sh";
