/** What Explorer shows of aegis.exe: name, version and publisher, written into the runtime before it is compiled in. */
import { NtExecutable, NtExecutableResource, Resource } from "resedit";

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
  resources.outputResource(image);
  return new Uint8Array(image.generate());
}
