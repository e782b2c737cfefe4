/** What is inside the executable besides our own code: as a CycloneDX bill of materials and as licence texts for people. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");

interface LockEntry {
  version?: string;
  license?: string;
  dev?: boolean;
  optional?: boolean;
}

/** What goes into the executable: not what only builds it, and not `bun`, whose runtime is described by itself. */
function shipped(): { name: string; folder: string; entry: LockEntry }[] {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, LockEntry>;
  };
  return Object.entries(lock.packages)
    .filter(([path, entry]) => path !== "" && !entry.dev && !entry.optional && path !== "node_modules/bun")
    .map(([path, entry]) => ({ name: path.replace(/^.*node_modules\//, ""), folder: join(root, path), entry }))
    .sort((left, right) => (left.name < right.name ? -1 : 1));
}

interface Component {
  "bom-ref": string;
  type: string;
  name: string;
  version: string;
  [more: string]: unknown;
}

/** npm's own bill of the lockfile without its time and number, and the runtime that npm does not see. */
export function bill(version: string): string {
  const npm = ["npm", "sbom", "--sbom-format=cyclonedx", "--omit=dev", "--omit=optional", "--package-lock-only"];
  const run = Bun.spawnSync(npm, { cwd: root, stdout: "pipe", stderr: "pipe" });
  if (run.exitCode !== 0) throw new Error(`npm sbom failed: ${run.stderr}`);
  const found = JSON.parse(run.stdout.toString()) as { components: Component[] } & Record<string, unknown>;
  const bun = (JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { dependencies: { bun: string } })
    .dependencies.bun;
  const libraries = found.components.filter(({ name }) => name !== "bun" && !name.startsWith("@oven/"));
  const runtime = (name: string, licence: string, purl: string): Component => ({
    "bom-ref": `${name}@${bun}`,
    type: "framework",
    name,
    version: bun,
    scope: "required",
    purl,
    licenses: [{ license: { id: licence } }],
  });
  const document = {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
      component: {
        type: "application",
        name: "aegis",
        version,
        "bom-ref": `aegis@${version}`,
        licenses: [{ license: { id: "Apache-2.0" } }],
      },
    },
    components: [
      runtime("bun", "MIT", `pkg:npm/bun@${bun}`),
      {
        ...runtime("JavaScriptCore", "LGPL-2.1-only", `pkg:generic/javascriptcore@${bun}`),
        description: `as linked into Bun ${bun}`,
      },
      ...libraries.map((component) => ({ ...component, externalReferences: undefined })),
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
