import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { callTool } from "../../test/support/call-tool.ts";
import { needs } from "../../test/support/needs.ts";
import { closeDescriptor, readFlags, readFully } from "../platform/descriptors.ts";
import { fsRead } from "./fs-read.ts";
import { type LocateOptions, locate, type Target } from "./path-guard.ts";

let base: string;
beforeAll(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), "aegis-guard-")));
  mkdirSync(join(base, "folder"));
  writeFileSync(join(base, "folder/file"), "content");
  symlinkSync("folder/file", join(base, "link"));
  symlinkSync("folder", join(base, "way"));
  symlinkSync("nowhere/at-all", join(base, "dangling"));
  symlinkSync("circle", join(base, "circle"));
});
afterAll(() => rmSync(base, { recursive: true }));

const ways: readonly NonNullable<LocateOptions["by"]>[] =
  process.platform === "linux" ? ["descriptors", "names"] : ["names"];
/** What this process has open by a path, sorted; pipes and sockets, of whatever test they are, come and go as they like. */
const openPaths = () =>
  readdirSync("/proc/self/fd")
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return ""; // it was the one that lists them
      }
    })
    .filter((path) => path.startsWith("/") && !path.startsWith("/dev/") && !path.endsWith("/fd"))
    .sort();

async function found(path: string, options: Partial<LocateOptions> = {}): Promise<Target> {
  const located = await locate(path, { follow: true, ...options });
  if (located.kind === "refused") throw new Error(located.reason);
  await located.target.close();
  return located.target;
}

const refusal = async (path: string) => {
  const located = await locate(path, { follow: true });
  if (located.kind === "refused") return located.reason;
  await located.target.close();
  throw new Error(`it was found: ${located.target.path}`);
};

for (const by of ways)
  describe(`by ${by}`, () => {
    test("a path is judged as where it really leads", async () => {
      const real = join(base, "folder/file");
      for (const path of ["folder/file", "link", "way/file", "way/../folder/file"].slice(0, 3))
        expect(await found(`${base}/${path}`, { by })).toMatchObject({ path: real, kind: "file", obstacle: null });
      expect(await found(`${base}//folder/./file/`, { by })).toMatchObject({ path: real });
      expect(await found("/", { by })).toMatchObject({ path: "/", kind: "directory" });
    });

    test("a link itself is judged by its own name where it is not followed", async () => {
      expect(await found(join(base, "way/../link").replace("way/../", ""), { by, follow: false })).toMatchObject({
        path: join(base, "link"),
        kind: "symlink",
      });
      expect(await found(join(base, "way/file"), { by, follow: false })).toMatchObject({
        path: join(base, "folder/file"),
        kind: "file",
      });
    });

    test("what is not there is judged as where it would be", async () => {
      expect(await found(join(base, "way/new"), { by })).toMatchObject({
        path: join(base, "folder/new"),
        kind: "missing",
        missing: ["new"],
        obstacle: "ENOENT",
      });
      expect(await found(join(base, "way/a/b/new"), { by })).toMatchObject({
        path: join(base, "folder/a/b/new"),
        missing: ["a", "b", "new"],
      });
      expect(await found(join(base, "dangling"), { by })).toMatchObject({
        path: join(base, "nowhere/at-all"),
        kind: "missing",
      });
      expect(await found(join(base, "link/below"), { by })).toMatchObject({
        path: join(base, "link/below"),
        obstacle: "ENOTDIR",
      });
      expect(await found(join(base, "circle"), { by })).toMatchObject({ kind: "missing", obstacle: "ELOOP" });
    });

    test("what was judged is what is opened, whatever its name leads to by then", async () => {
      const path = join(base, `moving-${by}`);
      writeFileSync(path, "judged");
      const located = await locate(path, { follow: true, by });
      if (located.kind === "refused") throw new Error(located.reason);
      renameSync(path, `${path}.old`);
      writeFileSync(path, "other");
      const opened = await located.target.open(readFlags).catch((error: NodeJS.ErrnoException) => error.code ?? "");
      if (typeof opened === "number") {
        expect((await readFully(opened, 100, 0)).toString()).toBe("judged");
        await closeDescriptor(opened);
      } else expect(opened).toBe("ESTALE");
      expect(typeof opened).toBe(by === "descriptors" ? "number" : "string");
      await located.target.close();
    });
  });

test("a path that cannot be judged is refused", async () => {
  expect(await refusal("relative/file")).toBe("it is not absolute");
  expect(await refusal("~/file")).toBe("it is not absolute");
  expect(await refusal(`${base}/way/../file`)).toBe("it holds ..");
  expect(await refusal(`${base}/a\0b`)).toBe("it holds a zero byte");
  expect(await refusal(`${base}/\ud800`)).toBe("it is no well-formed text");
});

needs("linux")("the daemon shows nobody its own memory and environment", async () => {
  for (const path of [
    "/proc/self/environ",
    `/proc/${process.pid}/mem`,
    "/proc/thread-self/environ",
    "/proc/self/fd/0",
    "/proc/self",
    `/proc/${process.pid}/task/${process.pid}/environ`,
  ])
    expect(await refusal(path)).toBe("it shows the daemon itself");
  expect(await refusal("/proc/kcore")).toBe("it shows the memory of the machine");
  expect(await found("/proc/self/cwd/package.json").catch(() => null)).toMatchObject({
    path: join(process.cwd(), "package.json"),
  });
  expect(await found("/proc/1/status")).toMatchObject({ path: "/proc/1/status", kind: "file" });
});

needs(
  "root",
  "linux",
  "command:unshare",
)("a folder of another mount namespace is not taken for one of ours", async () => {
  const inside = join(base, "inside");
  mkdirSync(inside);
  writeFileSync(join(inside, "harmless"), "ours");
  const script = `mount -t tmpfs none ${inside} && echo hidden > ${inside}/harmless && echo ready && exec sleep 600`;
  const other = Bun.spawn(["unshare", "-m", "sh", "-c", script], { stdout: "pipe" });
  try {
    await other.stdout.getReader().read();
    expect(readFileSync(`/proc/${other.pid}/root${inside}/harmless`, "utf8")).toBe("hidden\n");
    expect(await refusal(`/proc/${other.pid}/root${inside}/harmless`)).toStartWith(
      "a folder on the way was moved meanwhile",
    );
  } finally {
    other.kill("SIGKILL");
    await other.exited;
  }
});

needs("linux")("no descriptor stays open, whatever became of the call", async () => {
  const before = openPaths();
  for (let i = 0; i < 20; i++) {
    await callTool(fsRead(), { path: join(base, "link") });
    await callTool(fsRead(), { path: join(base, "folder") });
    await callTool(fsRead(), { path: join(base, "dangling") });
    await callTool(fsRead(), { path: join(base, "circle") });
    await callTool(fsRead(), { path: join(base, "link") }, { allows: () => false });
    await callTool(fsRead(), { path: "/proc/self/environ" });
    await callTool(fsRead(), { path: `${base}/../x` });
  }
  expect(openPaths()).toEqual(before);
});

/** Exchanges what `way` and `file` lead to between an open and a closed folder, as fast as it can, `count` times each. */
const swapper = (place: string, count: number) => `
  const { renameSync, symlinkSync, rmSync, linkSync } = require("node:fs");
  process.chdir(${JSON.stringify(place)});
  for (let i = 0; i < ${count}; i++) {
    const to = i % 2 ? "open" : "closed";
    symlinkSync(to, "next"); renameSync("next", "way");
    symlinkSync(to + "/file", "next"); renameSync("next", "link");
    // A folder that is itself, and then a link to the closed one.
    if (i % 2) { rmSync("real"); renameSync("kept", "real"); } else { renameSync("real", "kept"); symlinkSync("closed", "real"); }
  }
  console.log("done");`;

test("100 000 exchanges of names while they are read, and never a byte from the closed folder", async () => {
  const place = join(base, "race");
  for (const folder of ["open", "closed", "real"]) {
    mkdirSync(join(place, folder), { recursive: true });
    writeFileSync(join(place, folder, "file"), folder === "closed" ? "SECRET" : "harmless");
  }
  chmodSync(place, 0o700);
  const exchanges = 100_000;
  const swaps = Bun.spawn([process.execPath, "-e", swapper(place, Math.ceil(exchanges / 3))], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const tool = fsRead();
  const closed = join(place, "closed");
  const allows = (access: { kind: string; path?: string }) =>
    access.kind === "path" && !access.path?.startsWith(closed);
  const seen: Record<string, number> = {};
  let running = true;
  void swaps.exited.then(() => {
    running = false;
  });
  while (running)
    for (const name of ["way/file", "link", "real/file"]) {
      const called = await callTool(tool, { path: join(place, name) }, { allows });
      const content =
        called.kind === "ran" && called.result.ok ? String(called.result.structured?.content) : called.kind;
      seen[content] = (seen[content] ?? 0) + 1;
    }
  expect(await new Response(swaps.stdout).text()).toBe("done\n");
  expect(Object.keys(seen)).not.toContain("SECRET");
  expect(seen.harmless).toBeGreaterThan(10);
  expect(seen.denied).toBeGreaterThan(10);
}, 60_000);
