/** What is inside the executable besides our own code: as a CycloneDX bill of materials and as licence texts for people. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");

interface LockEntry {
  version?: string;
  license?: string;
  dev?: boolean;
  optional?: boolean;
  integrity?: string;
}

/** What goes into the executable: not what only builds it, and not `bun`, whose runtime is described by itself. */
function shipped(): { name: string; path: string; folder: string; entry: LockEntry }[] {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, LockEntry>;
  };
  return Object.entries(lock.packages)
    .filter(([path, entry]) => path !== "" && !entry.dev && !entry.optional && path !== "node_modules/bun")
    .map(([path, entry]) => ({ name: path.replace(/^.*node_modules\//, ""), path, folder: join(root, path), entry }))
    .sort((left, right) => (left.name < right.name ? -1 : 1));
}

interface Component {
  "bom-ref": string;
  type: string;
  name: string;
  version: string;
  [more: string]: unknown;
}

/** The libraries as the lockfile has them, and the runtime that no lockfile sees. */
export function bill(version: string): string {
  const bun = (JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { dependencies: { bun: string } })
    .dependencies.bun;
  const runtime = (name: string, licence: string, purl: string): Component => ({
    "bom-ref": `${name}@${bun}`,
    type: "framework",
    name,
    version: bun,
    scope: "required",
    purl,
    licenses: [{ license: { id: licence } }],
  });
  const libraries = shipped().map(
    ({ name, path, entry }): Component => ({
      "bom-ref": path,
      type: "library",
      name,
      version: entry.version ?? "",
      scope: "required",
      purl: `pkg:npm/${name.replace("@", "%40")}@${entry.version}`,
      licenses: [{ expression: entry.license ?? "NOASSERTION" }],
      hashes: [
        {
          alg: "SHA-512",
          content: Buffer.from((entry.integrity ?? "").replace("sha512-", ""), "base64").toString("hex"),
        },
      ],
    }),
  );
  const application = {
    type: "application",
    name: "aegis",
    version,
    "bom-ref": `aegis@${version}`,
    licenses: [{ license: { id: "Apache-2.0" } }],
  };
  const document = {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: { component: application },
    components: [
      runtime("bun", "MIT", `pkg:npm/bun@${bun}`),
      {
        ...runtime("JavaScriptCore", "LGPL-2.1-only", `pkg:generic/javascriptcore@${bun}`),
        description: `as linked into Bun ${bun}`,
      },
      ...libraries,
    ],
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

/** Every licence text that came with what is shipped. */
export function notices(): string {
  const parts = [
    "aegis contains the works below, each under its own licence.",
    "Bun (MIT), https://bun.sh: the runtime. It links JavaScriptCore (LGPL-2.1), https://github.com/oven-sh/WebKit; the\nexecutable can be relinked with another one from the sources of Bun and of aegis.",
  ];
  for (const { name, folder, entry } of shipped()) {
    const file = existsSync(folder)
      ? readdirSync(folder).find((one) => /^(?:licen[cs]e|copying)/i.test(one))
      : undefined;
    const text = file ? readFileSync(join(folder, file), "utf8").trim() : "The package holds no licence text.";
    parts.push(`${name} ${entry.version} (${entry.license})\n\n${text}`);
  }
  return `${parts.join(`\n\n${"-".repeat(80)}\n\n`)}\n`;
}
