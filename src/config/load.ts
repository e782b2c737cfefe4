/** Reads the edge's settings from their files, all of them, and says everything that is wrong with them at once. */
import { access, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { AegisError } from "../errors.ts";
import { aegisHome, type Environment, edgeFileNames, resolveFrom } from "../platform/paths.ts";
import { readTextFile } from "../platform/text-file.ts";
import { securityContextWarnings } from "../policy/context-warnings.ts";
import { type EdgeConfig, edgeConfig, judge, type Seal } from "./edge.ts";
import type { EdgeDocument } from "./edge-schema.ts";
import { deepFrozen } from "./frozen.ts";
import { type Layer, located, merged, readLayer } from "./layers.ts";
import { isCertificate, otlpFiles } from "./otlp.ts";

export interface LoadOptions {
  stateDir: string;
  /** Instead of `aegis-config.yaml` in the state directory. `AEGIS_CONFIG` is the caller's to look at. */
  configPath?: string;
  env: Environment;
  home: string;
}

/** `~/.aegis/config.yaml` below, the host's own file above it. */
export async function loadEdgeConfig(o: LoadOptions): Promise<{ config: EdgeConfig; warnings: string[] }> {
  const configPath = o.configPath ?? join(o.stateDir, edgeFileNames.config);
  const own = await repairable(configPath);
  if (!own)
    throw new AegisError("not_enrolled", `this host is not enrolled: ${configPath} does not exist`, {
      hint: "aegis edge enroll TOKEN",
    });
  const shared = await repairable(join(aegisHome(o.env, o.home), "config.yaml"));
  const layers = shared ? [shared, own] : [own];
  const document = merged(layers);
  const where = (path: readonly PropertyKey[]) => located(layers, path);
  const judged = judge(document, where);
  const files = judged.kind === "valid" ? await referredFiles(judged.document, o, where, configPath) : null;
  const problems = [
    ...layers.flatMap((layer) => layer.problems),
    ...(judged.kind === "invalid" ? judged.problems : []),
    ...(files?.problems ?? []),
  ];
  if (judged.kind === "invalid" || !files || problems.length > 0) throw invalid(problems, configPath);

  const seal = await sealOf(judged.document, o.stateDir, configPath);
  const written = (document.spec as { security_contexts?: unknown }).security_contexts;
  const contextsAt = where(["spec", "security_contexts"]);
  const warnings = [
    ...(await openFiles(layers)),
    ...judged.warnings,
    ...securityContextWarnings(judged.document.spec.security_contexts, written, contextsAt),
  ];
  const config = edgeConfig(judged.document, { ...files, ...o, configPath, hostname: hostname(), seal });
  return { config: deepFrozen(config), warnings };
}

/** Whoever can write the settings decides what runs here. */
async function openFiles(layers: readonly Layer[]): Promise<string[]> {
  const self = process.geteuid?.();
  if (self === undefined) return [];
  const found = await Promise.all(layers.map(async ({ file }) => ({ file, ...(await ownerOf(file)) })));
  return found.flatMap(({ file, uid, mode }) => [
    ...(uid === self || uid === 0 ? [] : [`${file} belongs to user ${uid}, who thereby decides what runs here`]),
    ...((mode & 0o022) === 0 ? [] : [`${file} can be changed by others: chmod go-w ${file}`]),
  ]);
}

async function ownerOf(file: string): Promise<{ uid: number; mode: number }> {
  const { uid, mode } = await stat(file);
  return { uid, mode };
}

/** What cannot be read at all is said with what to do about it. */
async function repairable(file: string): Promise<Layer | null> {
  return await readLayer(file).catch((thrown: unknown) => {
    const { code, message } = AegisError.from(thrown);
    throw new AegisError(code, message, {
      cause: thrown,
      hint: `edit ${file}, or restore it from a backup such as ${file}.bak; aegis edge enroll --force TOKEN writes a fresh one`,
    });
  });
}

function invalid(problems: readonly string[], configPath: string): AegisError {
  const [only] = problems;
  const message =
    problems.length === 1 && only ? only : `${problems.length} problems in the settings:\n  ${problems.join("\n  ")}`;
  return new AegisError("config_invalid", message, { hint: `edit ${configPath}, then start the daemon again` });
}

/** Written at enrollment. A directory of the peer's has neither the key nor the word, and is served as the peer would. */
async function sealOf({ spec }: EdgeDocument, stateDir: string, configPath: string): Promise<Seal> {
  const { seal, seal_root } = spec.cluster.edge;
  if (seal !== undefined) return seal;
  const keys = join(stateDir, edgeFileNames.controllerKeys);
  const enrolledStrictly = await access(keys).then(
    () => true,
    () => false,
  );
  if (!enrolledStrictly && seal_root === undefined) return "compat";
  throw new AegisError(
    "config_invalid",
    `${configPath}: spec.cluster.edge.seal: expected strict, because ${enrolledStrictly ? `${keys} exists` : "seal_root is set"}, found nothing`,
    { hint: "write seal: strict back, or enroll again: aegis edge enroll --force TOKEN" },
  );
}

/** The files that the settings name: authorities and client certificate. */
async function referredFiles(
  { spec }: EdgeDocument,
  { home }: LoadOptions,
  where: (path: readonly PropertyKey[]) => string,
  configPath: string,
) {
  const { tls } = spec.cluster.controller;
  const problems: string[] = [];
  const read = async (key: "ca_path" | "cert_path" | "key_path"): Promise<string | null> => {
    const path = tls[key];
    if (path === undefined) return null;
    const file = resolveFrom(dirname(configPath), path, home);
    const text = await readTextFile(file).catch((error: Error) => {
      problems.push(`${where(["spec", "cluster", "controller", "tls", key])}: ${error.message}`);
      return "";
    });
    if (text === null) problems.push(`${where(["spec", "cluster", "controller", "tls", key])}: ${file} does not exist`);
    return text;
  };
  const caPem = tls.ca_pem ?? (await read("ca_path"));
  const certPem = await read("cert_path");
  const keyPem = await read("key_path");
  const check = (key: string, pem: string | null, fits: (pem: string) => boolean) => {
    if (pem && !fits(pem))
      problems.push(
        `${where(["spec", "cluster", "controller", "tls", key])}: expected PEM text of a ${key === "key_path" ? "private key" : "certificate"}`,
      );
  };
  check(tls.ca_pem === undefined ? "ca_path" : "ca_pem", caPem, isCertificate);
  check("cert_path", certPem, isCertificate);
  check("key_path", keyPem, (pem) => /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(pem));
  const { otlp } = spec.observability;
  const at = ["spec", "observability", "otlp"];
  const path = otlp?.ca_path === undefined ? null : resolveFrom(dirname(configPath), otlp.ca_path, home);
  const sent = otlp && (await otlpFiles(otlp, path));
  problems.push(...(sent?.problems ?? []).map(({ key, message }) => `${where([...at, key])}: ${message}`));
  const clientCertificate = certPem && keyPem ? { certPem, keyPem } : null;
  return { caPem, clientCertificate, otlpCaPem: sent?.caPem ?? null, problems };
}
