/** fs.read, fs.list, fs.stat, fs.write, fs.edit, fs.multi_edit, fs.create_dir, fs.delete, fs.move. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { answerOf, callTool, refusalOf, toolContext } from "../../test/support/call-tool.ts";
import { needs } from "../../test/support/needs.ts";
import type { Access } from "../policy/access.ts";
import { fsEdit, fsMultiEdit } from "./fs-edit.ts";
import { fsList, fsRead, fsStat, maxChunkBytes } from "./fs-read.ts";
import { fsCreateDir, fsDelete, fsMove } from "./fs-tree.ts";
import { fsWrite } from "./fs-write.ts";

let base: string;
let file: string;
const at = (...names: string[]) => join(base, ...names);
const text = (path: string) => readFileSync(path, "utf8");
beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), "aegis-fs-")));
  file = at("file");
  writeFileSync(file, "hällo\nworld\n");
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

/** Policy that denies whatever ends in one of `names`. */
const without =
  (...names: string[]) =>
  (access: Access) =>
    access.kind !== "path" || !names.some((name) => access.path.endsWith(name));

describe("fs.read", () => {
  test("brings the file, its size and whether this was its end", async () => {
    expect(await answerOf(fsRead(), { path: file })).toEqual({
      ...{ status: "success", path: file, content: "hällo\nworld\n", encoding: "utf8" },
      ...{ offset: 0, bytes: 13, size_bytes: 13, eof: true },
    });
  });

  test("a long file comes in parts that put together are the file, and no character is torn", async () => {
    const whole = "€".repeat(1000);
    writeFileSync(file, whole);
    let content = "";
    let offset = 0;
    for (let eof = false; !eof; ) {
      const part = await answerOf(fsRead(), { path: file, offset, max_bytes: 100 });
      content += part.content;
      offset += part.bytes as number;
      eof = part.eof as boolean;
    }
    expect(content).toBe(whole);
    expect(offset).toBe(3000);
  });

  test("bytes that are no text are replaced, or kept as base64", async () => {
    writeFileSync(file, Buffer.from([0x61, 0xff, 0x00]));
    expect((await answerOf(fsRead(), { path: file })).content).toBe("a\ufffd\0");
    expect((await answerOf(fsRead(), { path: file, encoding: "base64" })).content).toBe("Yf8A");
  });

  test("one answer holds at most 768 KiB, and no more than the policy's response size", async () => {
    writeFileSync(file, Buffer.alloc(maxChunkBytes + 1, "x"));
    expect(await answerOf(fsRead(), { path: file })).toMatchObject({
      bytes: maxChunkBytes,
      eof: false,
      size_bytes: maxChunkBytes + 1,
    });
    expect(await answerOf(fsRead(), { path: file }, { maxOutputBytes: 10 })).toMatchObject({
      content: "x".repeat(10),
      eof: false,
    });
    expect(await refusalOf(fsRead(), { path: file, max_bytes: maxChunkBytes + 1 })).toStartWith(
      "max_bytes: expected at most",
    );
  });

  test("beyond the end there is nothing, and that is the end", async () => {
    expect(await answerOf(fsRead(), { path: file, offset: 100 })).toMatchObject({ content: "", bytes: 0, eof: true });
  });

  test("what is no file is told apart, and a pipe delays nobody", async () => {
    expect(await refusalOf(fsRead(), { path: base })).toBe(`"${base}" is a directory`);
    expect(await refusalOf(fsRead(), { path: at("no") })).toBe(`"${at("no")}" does not exist`);
    expect(await refusalOf(fsRead(), { path: at("file/below") })).toBe(
      `"${at("file/below")}" is no directory, or a part of it is none`,
    );
    Bun.spawnSync(["mkfifo", at("pipe")]);
    expect(await refusalOf(fsRead(), { path: at("pipe") })).toBe(`"${at("pipe")}" is no regular file`);
    expect(await refusalOf(fsRead(), { path: "/dev/null" })).toBe('"/dev/null" is no regular file');
    expect(await refusalOf(fsRead(), { path: "file" })).toBe('path "file" cannot be used: it is not absolute');
  });

  needs("linux")("files of /proc, which have no size, are read to their end", async () => {
    const { content, eof } = await answerOf(fsRead(), { path: "/proc/1/status" });
    expect(content).toContain("Name:");
    expect(eof).toBe(true);
  });
});

describe("fs.list and fs.stat", () => {
  test("a folder's entries are named with their types, and go on where an answer ended", async () => {
    mkdirSync(at("dir"));
    symlinkSync("nowhere", at("link"));
    const entries = [
      { name: "dir", file_type: "Directory" },
      { name: "file", file_type: "File" },
      { name: "link", file_type: "Symlink" },
    ];
    expect(await answerOf(fsList(), { path: base })).toEqual({
      status: "success",
      path: base,
      entries,
      truncated: false,
      total: 3,
    });
    expect(await answerOf(fsList(), { path: base, max_entries: 2 })).toMatchObject({
      entries: entries.slice(0, 2),
      truncated: true,
    });
    expect(await answerOf(fsList(), { path: base, after: "file" })).toMatchObject({
      entries: entries.slice(2),
      truncated: false,
    });
    expect(await refusalOf(fsList(), { path: file })).toBe(`"${file}" is no directory`);
  });

  test("a path is told with its type, size, permissions and time, and a link by itself or by what it leads to", async () => {
    symlinkSync("file", at("link"));
    chmodSync(file, 0o640);
    const stats = await answerOf(fsStat(), { path: at("link") });
    expect(stats).toMatchObject({
      real_path: file,
      file_type: "File",
      size_bytes: 13,
      mode: "0640",
      uid: process.getuid?.(),
    });
    expect(new Date(stats.modified_at as string).getTime()).toBeCloseTo(statSync(file).mtimeMs, -2);
    expect(await answerOf(fsStat(), { path: at("link"), follow: false })).toMatchObject({
      file_type: "Symlink",
      leads_to: "file",
    });
  });

  test("a checksum covers the file, or its beginning for a copy that goes on later", async () => {
    const sum = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
    const bytes = readFileSync(file);
    expect(await answerOf(fsStat(), { path: file, checksum: "sha256" })).toMatchObject({
      sha256: sum(bytes),
      checksum_bytes: 13,
    });
    expect(await answerOf(fsStat(), { path: file, checksum: "sha256", checksum_bytes: 5 })).toMatchObject({
      sha256: sum(bytes.subarray(0, 5)),
      checksum_bytes: 5,
    });
    expect(await refusalOf(fsStat(), { path: base, checksum: "sha256" })).toContain("is no file");
  });
});

describe("fs.write", () => {
  test("makes a file and the folders above it", async () => {
    const path = at("a/b/new");
    expect(await answerOf(fsWrite(), { path, content: "hé" })).toEqual({
      status: "success",
      path,
      bytes_written: 3,
      size_bytes: 3,
    });
    expect(text(path)).toBe("hé");
    expect(readdirSync(at("a/b"))).toEqual(["new"]);
  });

  test("replaces a file in one step, keeps its permissions, and leaves nothing of a longer one", async () => {
    chmodSync(file, 0o751);
    const before = statSync(file).ino;
    await answerOf(fsWrite(), { path: file, content: "x" });
    expect(text(file)).toBe("x");
    expect(statSync(file).mode & 0o777).toBe(0o751);
    expect(statSync(file).ino).not.toBe(before);
    expect(readdirSync(base)).toEqual(["file"]);
    await answerOf(fsWrite(), { path: file, content: "y", mode: "0600" });
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test("writes where a link leads, and the link and the file's other names stay", async () => {
    symlinkSync("file", at("link"));
    linkSync(file, at("second"));
    const called = await callTool(fsWrite(), { path: at("link"), content: "new" });
    expect(called).toMatchObject({ accesses: [{ kind: "path", mode: "write", path: file }] });
    expect(readlinkSync(at("link"))).toBe("file");
    expect(text(at("second"))).toBe("new");
    expect(statSync(file).nlink).toBe(2);
  });

  test("a link to a file that is not there yet makes that file, judged by where it will be", async () => {
    symlinkSync("deep/target", at("link"));
    const called = await callTool(fsWrite(), { path: at("link"), content: "x" });
    expect(called).toMatchObject({ accesses: [{ path: at("deep/target") }] });
    expect(text(at("deep/target"))).toBe("x");
    expect(lstatSync(at("link")).isSymbolicLink()).toBe(true);
  });

  test("parts are put at their place, without gaps, and the rest can be cut off", async () => {
    const write = (args: object) => answerOf(fsWrite(), { path: file, ...args });
    expect(await write({ content_base64: Buffer.from("AB").toString("base64"), offset: 0 })).toMatchObject({
      size_bytes: 13,
    });
    expect(await write({ content: "!", offset: 13 })).toMatchObject({ bytes_written: 1, size_bytes: 14 });
    expect(text(file)).toEndWith("world\n!");
    expect(await write({ content: "CD", offset: 0, truncate: true })).toMatchObject({ size_bytes: 2 });
    expect(text(file)).toBe("CD");
    expect(await refusalOf(fsWrite(), { path: file, content: "x", offset: 3 })).toBe(
      `offset 3 lies beyond the end of "${file}", which has 2 bytes`,
    );
    expect(await answerOf(fsWrite(), { path: at("new"), content: "x", offset: 0 })).toMatchObject({ size_bytes: 1 });
    expect(await refusalOf(fsWrite(), { path: at("other"), content: "x", offset: 1 })).toContain(
      "does not exist, so nothing",
    );
  });

  test("one call brings at most 768 KiB", async () => {
    const content = "x".repeat(maxChunkBytes);
    expect(await answerOf(fsWrite(), { path: file, content })).toMatchObject({ size_bytes: maxChunkBytes });
    expect(await refusalOf(fsWrite(), { path: file, content: `${content}x` })).toBe(
      `content has ${maxChunkBytes + 1} bytes, the limit is ${maxChunkBytes}: write the rest with offset`,
    );
  });

  test("what makes no sense is refused before anything is touched", async () => {
    expect(await refusalOf(fsWrite(), { path: file })).toBe("either content or content_base64 is needed");
    expect(await refusalOf(fsWrite(), { path: file, content: "", truncate: true })).toStartWith(
      "truncate belongs to offset",
    );
    expect(await refusalOf(fsWrite(), { path: file, content: "", mode: "rw" })).toBe(
      'mode: expected permissions in octal, such as "0644", got "rw"',
    );
    expect(await refusalOf(fsWrite(), { path: base, content: "" })).toBe(`"${base}" is a directory`);
    expect(await refusalOf(fsWrite(), { path: at("file/x"), content: "" })).toContain("is no directory");
    expect(text(file)).toBe("hällo\nworld\n");
  });

  test("a folder that was made into a link meanwhile does not lead the new file elsewhere", async () => {
    mkdirSync(at("elsewhere"));
    const prepared = await fsWrite().prepare({ path: at("a/new"), content: "x" });
    if (prepared.kind !== "ready") throw new Error(prepared.message);
    symlinkSync("elsewhere", at("a"));
    const result = await prepared.call.run(toolContext());
    expect(result).toMatchObject({ ok: false, errorKind: "invalid_args" });
    expect(readdirSync(at("elsewhere"))).toEqual([]);
  });

  needs(
    "linux",
    "root",
    "command:mount",
  )("a disk that is full is told, and the old file stays", async () => {
    Bun.spawnSync(["mkdir", at("full")]);
    const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=64k", "none", at("full")]);
    expect(mounted.exitCode).toBe(0);
    try {
      writeFileSync(at("full/file"), "old");
      const content = "x".repeat(200_000);
      expect(await refusalOf(fsWrite(), { path: at("full/file"), content })).toContain("no space is left");
      expect(text(at("full/file"))).toBe("old");
      expect(readdirSync(at("full"))).toEqual(["file"]);
    } finally {
      Bun.spawnSync(["umount", at("full")]);
    }
  });
});

describe("fs.edit and fs.multi_edit", () => {
  const edit = (target_content: string, replacement_content: string) => ({ target_content, replacement_content });

  test("a piece of text that occurs once is replaced, and nothing of the old end stays", async () => {
    await answerOf(fsEdit(), { path: file, ...edit("hällo\nwor", "$& ") });
    expect(text(file)).toBe("$& ld\n");
  });

  test("one that occurs never or twice changes nothing", async () => {
    expect(await refusalOf(fsEdit(), { path: file, ...edit("nowhere", "x") })).toBe(
      `target_content "nowhere" does not occur in "${file}"; nothing was written`,
    );
    expect(await refusalOf(fsEdit(), { path: file, ...edit("l", "x") })).toContain('"l" occurs more than once');
    writeFileSync(file, "aaa");
    expect(await refusalOf(fsEdit(), { path: file, ...edit("aa", "x") })).toContain("more than once");
    expect(text(file)).toBe("aaa");
  });

  test("several edits are made in order, all or none", async () => {
    expect(await answerOf(fsMultiEdit(), { path: file, edits: [edit("hällo", "a"), edit("a\nworld", "b")] })).toEqual({
      status: "success",
      path: file,
      edits_applied: 2,
    });
    expect(text(file)).toBe("b\n");
    expect(await refusalOf(fsMultiEdit(), { path: file, edits: [edit("b", "c"), edit("b", "d")] })).toStartWith(
      'edit 2 of 2: target_content "b" does not occur',
    );
    expect(text(file)).toBe("b\n");
  });

  test("what is no text is left alone", async () => {
    writeFileSync(file, Buffer.from([0xff, 0x61]));
    expect(await refusalOf(fsEdit(), { path: file, ...edit("a", "b") })).toContain("is no UTF-8 text");
  });

  test("both are judged as reading and writing", async () => {
    const called = await callTool(fsEdit(), { path: file, ...edit("world", "x") });
    expect(called).toMatchObject({
      accesses: [
        { mode: "read", path: file },
        { mode: "write", path: file },
      ],
    });
  });
});

describe("fs.create_dir, fs.delete and fs.move", () => {
  test("a folder is made with those above it, and a second time is the same as once", async () => {
    const path = at("a/b");
    expect(await answerOf(fsCreateDir(), { path })).toEqual({ status: "success", path, created: true });
    expect(await answerOf(fsCreateDir(), { path })).toEqual({ status: "success", path, created: false });
    expect(await refusalOf(fsCreateDir(), { path: file })).toBe(`"${file}" exists and is no directory`);
  });

  test("a file or a link is deleted, never what the link leads to", async () => {
    symlinkSync("file", at("link"));
    expect(await answerOf(fsDelete(), { path: at("link") })).toEqual({
      status: "success",
      path: at("link"),
      deleted: 1,
    });
    expect(existsSync(file)).toBe(true);
    await answerOf(fsDelete(), { path: file });
    expect(readdirSync(base)).toEqual([]);
    expect(await refusalOf(fsDelete(), { path: file })).toContain("does not exist");
  });

  test("a folder is deleted only when that was said, and links in it are not followed", async () => {
    mkdirSync(at("dir/sub"), { recursive: true });
    writeFileSync(at("dir/sub/x"), "");
    symlinkSync(base, at("dir/up"));
    expect(await refusalOf(fsDelete(), { path: at("dir") })).toContain("set recursive");
    expect(await answerOf(fsDelete(), { path: at("dir"), recursive: true })).toMatchObject({ deleted: 4 });
    expect(readdirSync(base)).toEqual(["file"]);
  });

  test("a folder that holds something policy keeps is not deleted at all, and not moved", async () => {
    mkdirSync(at("dir/sub"), { recursive: true });
    writeFileSync(at("dir/a"), "");
    writeFileSync(at("dir/sub/.env"), "");
    const allows = without(".env");
    const held = `"${at("dir/sub/.env")}" below it`;
    expect(await refusalOf(fsDelete(), { path: at("dir"), recursive: true }, { allows })).toBe(
      `nothing was deleted, because policy does not let this call write ${held}`,
    );
    expect(await refusalOf(fsMove(), { path: at("dir"), destination: at("new") }, { allows })).toBe(
      `nothing was moved, because policy does not let this call touch ${held}`,
    );
    expect(readdirSync(at("dir")).sort()).toEqual(["a", "sub"]);
  });

  test("the root is not deleted", async () => {
    expect(await refusalOf(fsDelete(), { path: "/", recursive: true })).toBe(
      "the root of the file system is not deleted",
    );
  });

  test("files, links and folders are renamed, into folders that are made", async () => {
    symlinkSync("file", at("link"));
    mkdirSync(at("dir"));
    expect(await answerOf(fsMove(), { path: file, destination: at("new/deep/file") })).toEqual({
      status: "success",
      path: file,
      destination: at("new/deep/file"),
    });
    await answerOf(fsMove(), { path: at("link"), destination: at("link2") });
    await answerOf(fsMove(), { path: at("dir"), destination: at("dir2") });
    expect(readdirSync(base).sort()).toEqual(["dir2", "link2", "new"]);
    expect(text(at("new/deep/file"))).toBe("hällo\nworld\n");
  });

  test("nothing is replaced unless that was said, not even what appeared meanwhile", async () => {
    writeFileSync(at("other"), "other");
    expect(await refusalOf(fsMove(), { path: file, destination: at("other") })).toContain(
      "exists already: set overwrite",
    );
    expect(await refusalOf(fsMove(), { path: file, destination: at("other/x") })).toContain("is no directory");
    const prepared = await fsMove().prepare({ path: file, destination: at("late") });
    writeFileSync(at("late"), "late");
    if (prepared.kind !== "ready") throw new Error(prepared.message);
    const result = await prepared.call.run(toolContext());
    expect(result.errorMessage).toContain("exists already");
    expect(text(at("late"))).toBe("late");
    await answerOf(fsMove(), { path: file, destination: at("other"), overwrite: true });
    expect(text(at("other"))).toBe("hällo\nworld\n");
    expect(existsSync(file)).toBe(false);
  });

  test("a move is judged as reading and writing one place and writing the other", async () => {
    const called = await callTool(fsMove(), { path: file, destination: at("x") });
    expect(called).toMatchObject({
      accesses: [
        { mode: "read", path: file },
        { mode: "write", path: file },
        { mode: "write", path: at("x") },
      ],
    });
  });
});

test("a call that is stopped answers at once and says that it may have been done in part", async () => {
  const stop = AbortSignal.abort({ kind: "timeout", afterMs: 1500 });
  expect(await refusalOf(fsRead(), { path: file }, { signal: stop })).toBe(
    "stopped after 1.5 s; it may have been done in part",
  );
});
