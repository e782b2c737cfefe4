/** What Explorer shows of aegis.exe: name, version and publisher, written into the runtime before it is compiled in. */
import { Data, NtExecutable, NtExecutableResource, Resource } from "resedit";

const english = { lang: 0x409, codepage: 1200 };

/** A copy of Bun's executable that describes itself as aegis. `version` is MAJOR.MINOR.PATCH with an optional suffix. */
export function describedRuntime(runtime: Uint8Array, version: string): Uint8Array {
  const image = NtExecutable.from(runtime, { ignoreCert: true });
  const resources = NtExecutableResource.from(image);
  const [major = 0, minor = 0, patch = 0] = version.split(/[.-]/).map((part) => Number.parseInt(part, 10) || 0);
  const info = Resource.VersionInfo.fromEntries(resources.entries)[0] ?? Resource.VersionInfo.createEmpty();
  info.setFileVersion(major, minor, patch, 0, english.lang);
  info.setProductVersion(major, minor, patch, 0, english.lang);
  info.setStringValues(english, {
    ProductName: "aegis",
    FileDescription: "AEGIS edge daemon, controller and command line",
    CompanyName: "100monkeys.ai",
    InternalName: "aegis",
    OriginalFilename: "aegis.exe",
    LegalCopyright: "Apache-2.0",
    FileVersion: version,
    ProductVersion: version,
  });
  info.outputToResourceEntries(resources.entries);
  const icons = Data.IconFile.from(iconFile([16, 32, 48])).icons.map((item) => item.data);
  const [group] = Resource.IconGroupEntry.fromEntries(resources.entries);
  Resource.IconGroupEntry.replaceIconsForResource(
    resources.entries,
    group?.id ?? 1,
    group?.lang ?? english.lang,
    icons,
  );
  resources.outputResource(image);
  return new Uint8Array(image.generate());
}

/** A white shield on dark blue, drawn here so that no picture has to be kept: an .ico file with one image for each size. */
function iconFile(sizes: readonly number[]): ArrayBuffer {
  const images = sizes.map(bitmap);
  const header = Buffer.alloc(6 + 16 * sizes.length);
  header.writeUInt16LE(1, 2); // an icon
  header.writeUInt16LE(sizes.length, 4);
  let offset = header.length;
  for (const [index, image] of images.entries()) {
    const at = 6 + 16 * index;
    header.set([sizes[index] ?? 0, sizes[index] ?? 0], at);
    header.writeUInt16LE(1, at + 4);
    header.writeUInt16LE(32, at + 6);
    header.writeUInt32LE(image.length, at + 8);
    header.writeUInt32LE(offset, at + 12);
    offset += image.length;
  }
  return new Uint8Array(Buffer.concat([header, ...images])).buffer;
}

/** BITMAPINFOHEADER, rows from the bottom up in BGRA, then a mask that hides nothing. */
function bitmap(size: number): Buffer {
  const maskRow = Math.ceil(size / 32) * 4;
  const image = Buffer.alloc(40 + size * size * 4 + maskRow * size);
  image.writeUInt32LE(40, 0);
  image.writeInt32LE(size, 4);
  image.writeInt32LE(size * 2, 8); // picture and mask
  image.writeUInt16LE(1, 12);
  image.writeUInt16LE(32, 14);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      const [across, down] = [Math.abs((x + 0.5) / size - 0.5), (y + 0.5) / size];
      const width = down < 0.5 ? 0.34 : 0.34 * Math.sqrt(Math.max(0, 1 - ((down - 0.5) / 0.4) ** 2));
      const isShield = down > 0.12 && down < 0.9 && across < width;
      image.set(isShield ? [255, 255, 255, 255] : [92, 52, 20, 255], 40 + ((size - 1 - y) * size + x) * 4);
    }
  return image;
}
