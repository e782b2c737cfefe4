/**
 * The code signature of a macOS executable: every page hash checked, and an ad-hoc signature written where Bun leaves a
 * stale one. No Apple tool runs here; layouts are those of Apple's <kern/cs_blobs.h> and <mach-o/loader.h>.
 */
import { createHash } from "node:crypto";

const MH_MAGIC_64 = 0xfeedfacf;
const LC_SEGMENT_64 = 0x19;
const LC_CODE_SIGNATURE = 0x1d;
const LC_BUILD_VERSION = 0x32;
const EMBEDDED_SIGNATURE = 0xfade0cc0;
const CODE_DIRECTORY = 0xfade0c02;
/** CS_ADHOC | CS_LINKER_SIGNED, as Apple's own linker marks what nobody signed. */
const adhocFlags = 0x20002;
const hashTypes: Readonly<Record<number, string>> = { 1: "sha1", 2: "sha256" };
const pageBytes = 4096;
/** Memory pages on arm64: a segment's size in memory is a multiple of them. */
const segmentAlign = 16_384;

interface Segment {
  /** Offset of its load command. */
  command: number;
  fileOffset: number;
  fileBytes: number;
}

interface MachO {
  signature: { command: number; offset: number; bytes: number } | null;
  segments: ReadonlyMap<string, Segment>;
  /** `13.0` */
  minimumOs: string | null;
}

/** Reads the load commands of a thin 64-bit image. Throws on anything else. */
export function readMachO(image: Buffer): MachO {
  if (image.length < 32 || image.readUInt32LE(0) !== MH_MAGIC_64) throw new Error("not a 64-bit Mach-O image");
  const count = image.readUInt32LE(16);
  const segments = new Map<string, Segment>();
  let signature: MachO["signature"] = null;
  let minimumOs: string | null = null;
  let at = 32;
  for (let index = 0; index < count; index++) {
    const command = image.readUInt32LE(at);
    const bytes = image.readUInt32LE(at + 4);
    if (command === LC_CODE_SIGNATURE)
      signature = { command: at, offset: image.readUInt32LE(at + 8), bytes: image.readUInt32LE(at + 12) };
    if (command === LC_SEGMENT_64) {
      const name = image.toString("latin1", at + 8, at + 24).replace(/\0+$/, "");
      const fileOffset = Number(image.readBigUInt64LE(at + 40));
      segments.set(name, { command: at, fileOffset, fileBytes: Number(image.readBigUInt64LE(at + 48)) });
    }
    if (command === LC_BUILD_VERSION) {
      const packed = image.readUInt32LE(at + 12);
      minimumOs = `${packed >>> 16}.${(packed >>> 8) & 0xff}`;
    }
    at += bytes;
  }
  return { signature, segments, minimumOs };
}

/** Null when every page of `image` is what its signature says, else what is wrong in words. */
export function signatureProblem(image: Buffer): string | null {
  const { signature } = readMachO(image);
  if (!signature) return "it has no code signature";
  const { offset, bytes } = signature;
  if (offset + bytes !== image.length) return "its signature does not end with the file";
  if (image.readUInt32BE(offset) !== EMBEDDED_SIGNATURE) return "its signature does not begin as one";
  const blobs = image.readUInt32BE(offset + 8);
  let directories = 0;
  for (let index = 0; index < blobs; index++) {
    const start = offset + image.readUInt32BE(offset + 12 + 8 * index + 4);
    if (image.readUInt32BE(start) !== CODE_DIRECTORY) continue;
    directories++;
    const problem = directoryProblem(image, start, offset);
    if (problem) return problem;
  }
  return directories === 0 ? "its signature holds no code directory" : null;
}

function directoryProblem(image: Buffer, start: number, signatureOffset: number): string | null {
  const hashesAt = start + image.readUInt32BE(start + 16);
  const pages = image.readUInt32BE(start + 28);
  const codeLimit = image.readUInt32BE(start + 32);
  const hashBytes = image.readUInt8(start + 36);
  const algorithm = hashTypes[image.readUInt8(start + 37)];
  const size = 2 ** image.readUInt8(start + 39);
  if (!algorithm) return `its pages are hashed by type ${image.readUInt8(start + 37)}, which is not known here`;
  if (codeLimit !== signatureOffset)
    return `its hashes end at ${codeLimit}, its signature begins at ${signatureOffset}`;
  if (pages !== Math.ceil(codeLimit / size))
    return `it has ${pages} page hashes for ${Math.ceil(codeLimit / size)} pages`;
  for (let page = 0; page < pages; page++) {
    const content = image.subarray(page * size, Math.min((page + 1) * size, codeLimit));
    const hash = createHash(algorithm).update(content).digest().subarray(0, hashBytes);
    const at = hashesAt + page * hashBytes;
    if (!hash.equals(image.subarray(at, at + hashBytes))) return `page ${page} of ${pages} is not what was signed`;
  }
  return null;
}

/** The image with its signature replaced by an ad-hoc one, such as macOS asks of any executable. */
export function signAdHoc(image: Buffer, identifier: string): Buffer {
  const { signature, segments } = readMachO(image);
  const linkedit = segments.get("__LINKEDIT");
  const text = segments.get("__TEXT");
  if (!signature || !linkedit || !text) throw new Error("the image lacks a signature, __LINKEDIT or __TEXT");
  const code = Buffer.from(image.subarray(0, signature.offset));
  const pages = Math.ceil(code.length / pageBytes);
  const name = Buffer.from(`${identifier}\0`);
  const directoryHeader = 88;
  const hashesAt = directoryHeader + name.length;
  const directoryBytes = hashesAt + 32 * pages;
  const total = 20 + directoryBytes;
  const signatureBytes = Math.ceil(total / 16) * 16;

  // The load commands are part of what is hashed, so they say where the new signature ends before hashing begins.
  code.writeUInt32LE(code.length, signature.command + 8);
  code.writeUInt32LE(signatureBytes, signature.command + 12);
  const linkeditBytes = code.length + signatureBytes - linkedit.fileOffset;
  code.writeBigUInt64LE(BigInt(linkeditBytes), linkedit.command + 48);
  code.writeBigUInt64LE(BigInt(Math.ceil(linkeditBytes / segmentAlign) * segmentAlign), linkedit.command + 32);

  const blob = Buffer.alloc(signatureBytes);
  blob.writeUInt32BE(EMBEDDED_SIGNATURE, 0);
  blob.writeUInt32BE(total, 4);
  blob.writeUInt32BE(1, 8); // one blob, of slot type 0, at 20
  blob.writeUInt32BE(20, 16);
  const directory = blob.subarray(20);
  const version = 0x20400; // the first with the exec segment's fields
  const header = [
    CODE_DIRECTORY,
    directoryBytes,
    version,
    adhocFlags,
    hashesAt,
    directoryHeader,
    0,
    pages,
    code.length,
  ];
  for (const [index, value] of header.entries()) directory.writeUInt32BE(value, 4 * index);
  directory.set([32, 2, 0, Math.log2(pageBytes)], 36); // hash size, SHA-256, platform, page size
  directory.writeBigUInt64BE(BigInt(text.fileOffset), 64);
  directory.writeBigUInt64BE(BigInt(text.fileBytes), 72);
  directory.writeBigUInt64BE(1n, 80); // CS_EXECSEG_MAIN_BINARY
  name.copy(directory, directoryHeader);
  for (let page = 0; page < pages; page++) {
    const content = code.subarray(page * pageBytes, (page + 1) * pageBytes);
    createHash("sha256")
      .update(content)
      .digest()
      .copy(directory, hashesAt + 32 * page);
  }
  return Buffer.concat([code, blob]);
}
