/** What a release is made of besides executables: the installer for Windows and the formula, checked as far as text can be. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Ajv from "ajv";
import addFormats from "ajv-formats";
import { bill } from "../install/components.ts";
import { formula } from "../install/homebrew.ts";
import { releaseKey } from "../install/release-key.ts";
import { releaseTargets } from "../install/targets.ts";
import { needs } from "./support/needs.ts";
import { readPowerShell } from "./support/powershell.ts";

const root = join(import.meta.dir, "..");
const source = readFileSync(join(root, "install/install.ps1"), "utf8");

/** Cmdlets of Windows PowerShell 5.1 that the script may use; the parser takes any word for a command. */
const cmdlets = [
  ...["Copy-Item", "Expand-Archive", "ForEach-Object", "Get-ChildItem", "Get-FileHash", "Get-Service"],
  ...["Invoke-WebRequest", "Join-Path", "Move-Item"],
  ...["New-Item", "New-Object", "Out-Null", "Remove-Item", "Select-Object", "Test-Path", "Where-Object", "Write-Host"],
];

describe("install.ps1", () => {
  test("parses, and calls only its own functions and cmdlets that 5.1 has", async () => {
    const { errors, commands } = await readPowerShell(source);
    expect(errors).toEqual([]);
    const own = [...source.matchAll(/^function ([\w-]+)/gm)].map((match) => match[1] ?? "");
    expect(own).toContain("Install-Aegis");
    const allowed = new Set([...cmdlets, ...own, "throw"]);
    expect(commands.filter((name) => !allowed.has(name) && !name.startsWith("$") && !name.startsWith("("))).toEqual([]);
  });

  test("a misspelt cmdlet and a block left open are noticed", async () => {
    const misspelt = await readPowerShell(source.replace("Expand-Archive", "Expnd-Archive"));
    expect(misspelt.commands).toContain("Expnd-Archive");
    expect((await readPowerShell(source.replace("finally {", "finally "))).errors.length).toBeGreaterThan(0);
  });

  test("calls only subcommands that aegis.exe has", async () => {
    const { tree } = await import("../src/cli/tree.ts");
    const calls = [...source.matchAll(/& \$executable ([a-z ]+)/g)].map((match) => (match[1] ?? "").trim().split(" "));
    expect(calls.length).toBeGreaterThan(0);
    for (const words of calls) {
      let node: unknown = tree;
      for (const word of words) {
        if (typeof node === "object" && node !== null && "load" in node) break; // the rest are its arguments
        node = (node as { commands?: Record<string, unknown> }).commands?.[word];
        expect(node).toBeDefined();
      }
      expect(node).toHaveProperty("load");
    }
  });

  test("holds the same key as install.sh, so that a release can put its own in both", () => {
    const known = releaseKey({}).publicPem.trim();
    expect(source).toContain(known);
    expect(readFileSync(join(root, "install/install.sh"), "utf8")).toContain(known);
  });

  test("is ASCII, so that no code page changes it", () => {
    expect(source).toMatch(/^[\x09\x0a\x20-\x7e]*$/);
  });
});

describe("the bill of materials", () => {
  const folder = join(root, "node_modules/@cyclonedx/cyclonedx-library/res/schema");
  const schema = (name: string) => JSON.parse(readFileSync(join(folder, `${name}.SNAPSHOT.schema.json`), "utf8"));
  const ajv = addFormats(new Ajv({ strict: false, formats: { "idn-email": true, "iri-reference": true } }));
  for (const name of ["spdx", "jsf-0.82"])
    ajv.addSchema(schema(name), `http://cyclonedx.org/schema/${name}.SNAPSHOT.schema.json`);
  const isBill = ajv.compile(schema("bom-1.5"));
  const parsed = () => JSON.parse(bill("1.2.3"));

  test("is CycloneDX 1.5 to its authors' schema, names what no lockfile sees, and each part once", () => {
    const document = parsed();
    expect(isBill(document) || isBill.errors).toBe(true);
    const names = document.components.map(({ name }: { name: string }) => name);
    expect(names).toEqual(expect.arrayContaining(["bun", "JavaScriptCore", "@grpc/grpc-js", "zod"]));
    const refs = document.components.map((component: Record<string, unknown>) => component["bom-ref"]);
    expect(new Set(refs).size).toBe(refs.length);
  });

  test("with a licence that SPDX does not know, or a part without a name, would be refused", () => {
    const [unknown, nameless] = [parsed(), parsed()];
    unknown.components[0].licenses[0].license.id = "MITish";
    delete nameless.components[1].name;
    expect([isBill(unknown), isBill(nameless)]).toEqual([false, false]);
  });
});

/** Enough of Homebrew's language to ask the formula what it gives each platform. */
const homebrew = `
require "json"
class Service
  attr_reader :said
  def initialize = @said = {}
  def opt_bin = "/opt/bin"
  def var = "/var"
  def method_missing(name, *args, **named) = @said[name] = (args.empty? ? named : args.first)
  def respond_to_missing?(*) = true
end
class String
  def /(other) = "#{self}/#{other}"
end
class Formula
  class << self
    attr_accessor :os, :cpu, :said
    %i[desc homepage version license url sha256].each do |name|
      define_method(name) do |value|
        raise "#{name} is stated twice" if said.key?(name)
        said[name] = value
      end
    end
    def on_macos = (yield if os == "darwin")
    def on_linux = (yield if os == "linux")
    def on_arm = (yield if cpu == "arm64")
    def on_intel = (yield if cpu == "x64")
    def service(&block)
      asked = Service.new
      asked.instance_eval(&block)
      said[:service] = asked.said
    end
    def test(&) = said[:test] = true
    def inherited(child)
      child.os, child.cpu = ENV.fetch("OS_CPU").split("-")
      child.said = {}
    end
  end
end
load ARGV[0]
puts JSON.generate(AegisCli.said)
`;

describe("the formula", () => {
  const digests = new Map(releaseTargets.map(({ name }, index) => [name, String(index).repeat(64)]));

  needs("command:ruby")("is Ruby, and gives each of four platforms its own archive", () => {
    const folder = mkdtempSync(join(tmpdir(), "aegis-formula-"));
    try {
      const path = join(folder, "aegis-cli.rb");
      writeFileSync(path, formula("1.2.3", digests));
      writeFileSync(join(folder, "homebrew.rb"), homebrew);
      expect(Bun.spawnSync(["ruby", "-wc", path]).stdout.toString()).toBe("Syntax OK\n");
      for (const target of ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"]) {
        const run = Bun.spawnSync(["ruby", join(folder, "homebrew.rb"), path], {
          env: { ...process.env, OS_CPU: target },
        });
        expect(run.stderr.toString()).toBe("");
        expect(JSON.parse(run.stdout.toString())).toMatchObject({
          url: `https://get.100monkeys.ai/releases/v1.2.3/aegis-1.2.3-${target}.tar.gz`,
          sha256: digests.get(target),
          version: "1.2.3",
          license: "Apache-2.0",
          service: { run: ["/opt/bin/aegis", "edge", "run"], keep_alive: { successful_exit: false } },
          test: true,
        });
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("cannot be written without an archive for each platform", () => {
    expect(() => formula("1.2.3", new Map([["linux-x64", "0"]]))).toThrow("needs an archive for darwin-arm64");
  });
});
