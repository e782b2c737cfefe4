/** The edge's settings as everything inside reads them, and the rules that hold between several of them. */
import { dirname, join } from "node:path";
import type { PublicKey } from "../envelope/public-key.ts";
import type { LogLevel } from "../platform/log.ts";
import { isLoopback } from "../platform/loopback.ts";
import { edgeFileNames, resolveFrom } from "../platform/paths.ts";
import type { SecurityContext } from "../policy/context.ts";
import { type EdgeDocument, edgeSchema, type seals, unusedKeys } from "./edge-schema.ts";
import { parseEndpoint } from "./endpoint.ts";
import { unknownKeys, without } from "./known-keys.ts";
import type { Mapping } from "./layers.ts";
import { type OtlpConfig, otlpConfig } from "./otlp.ts";
import { inWords, valueAt } from "./problems.ts";

export type Seal = (typeof seals)[number];

export interface ControllerTls {
  /** `spki-sha256:<base64url>`; empty = authorities and name decide. */
  pins: readonly string[];
  caPem: string | null;
  serverName: string;
  clientCertificate: { certPem: string; keyPem: string } | null;
}

export interface TrustedOperator {
  name: string;
  key: PublicKey;
  /** Null: every context. */
  contexts: readonly string[] | null;
  /** Epoch milliseconds by this host's clock; null = no end. */
  notAfterMs: number | null;
}

export interface McpServer {
  name: string;
  command: string;
  args: readonly string[];
  env: Readonly<Record<string, string>>;
  /** Variable -> name of a secret of this host. */
  secretEnv: Readonly<Record<string, string>>;
  cwd: string | null;
}

export interface EdgeConfig {
  stateDir: string;
  configPath: string;
  /** What this host calls itself. */
  name: string;
  nodeId: string;
  tenantId: string;
  /** `tls` null = plaintext, which is possible to loopback only. */
  controller: { host: string; port: number; url: string; tls: ControllerTls | null };
  keyPath: string;
  tokenPath: string;
  controllerKeysPath: string;
  heartbeatIntervalMs: number;
  /** Longest wait before each next attempt; the last one for ever. */
  backoffScheduleMs: readonly number[];
  maxConcurrent: number;
  seal: Seal;
  /** Key id of the controller's root, base64url; null only with `compat`. */
  sealRoot: string | null;
  /** What is absent is detected. */
  capabilities: {
    os?: string;
    arch?: string;
    localTools?: readonly string[];
    mountPoints?: readonly string[];
    customLabels: Readonly<Record<string, string>>;
  };
  contexts: ReadonlyMap<string, SecurityContext>;
  trustedOperators: readonly TrustedOperator[];
  requireOperatorSignature: boolean;
  mcpServers: readonly McpServer[];
  proxy: { httpsProxy: string | null; noProxy: string | null } | null;
  logLevel: LogLevel;
  /** Null = nothing is sent anywhere. */
  otlp: OtlpConfig | null;
}

type Where = (path: readonly PropertyKey[]) => string;

export type Judged =
  | { kind: "valid"; document: EdgeDocument; warnings: string[] }
  | { kind: "invalid"; problems: string[]; warnings: string[] };

/** All that is wrong with a merged document, and all that is merely odd. `where` names file and path. */
export function judge(document: Mapping, where: Where): Judged {
  const first = edgeSchema.safeParse(document);
  const unknown = first.success ? [] : unknownKeys(edgeSchema, first.error.issues);
  const parsed =
    unknown.length === 0
      ? first
      : edgeSchema.safeParse(
          without(
            document,
            unknown.map(({ path }) => path),
          ),
        );
  const warnings = [
    ...unknown.map(
      ({ path, meant }) => `${where(path)} is unknown and has no effect${meant ? `; did you mean ${meant}?` : ""}`,
    ),
    ...unusedKeys
      .filter((path) => valueAt(document, path) !== undefined)
      .map((path) => `${where(path)} has no effect on an edge`),
  ];
  const between = crossProblems(document, where);
  if (parsed.success && between.length === 0) return { kind: "valid", document: parsed.data, warnings };
  return {
    kind: "invalid",
    problems: [...(parsed.success ? [] : inWords(parsed.error.issues, document, where)), ...between],
    warnings,
  };
}

/** Read from the document as it stands, so that these are found beside whatever the schema finds. */
function crossProblems(document: Mapping, where: Where): string[] {
  const problems: string[] = [];
  const controller = ["spec", "cluster", "controller"];
  const tlsPath = [...controller, "tls"];
  const at = (path: readonly string[]) => valueAt(document, path);

  const written = at([...controller, "endpoint"]);
  const endpoint = typeof written === "string" ? parseEndpoint(written) : null;
  const enabled = at([...tlsPath, "enabled"]);
  if (typeof written === "string" && !endpoint)
    problems.push(
      `${where([...controller, "endpoint"])}: expected a URL such as https://controller.example:50056, found ${JSON.stringify(written)}`,
    );
  const plaintext = endpoint?.scheme === "http" || enabled === false;
  if (endpoint?.scheme === "http" && enabled === true)
    problems.push(`${where([...tlsPath, "enabled"])}: is true, but the endpoint begins with http://`);
  if (endpoint && plaintext && !isLoopback(endpoint.host))
    problems.push(
      `${where(enabled === false ? [...tlsPath, "enabled"] : [...controller, "endpoint"])}: without TLS only this machine itself may be the controller, not ${endpoint.host}`,
    );
  if (at([...tlsPath, "ca_pem"]) !== undefined && at([...tlsPath, "ca_path"]) !== undefined)
    problems.push(`${where([...tlsPath, "ca_path"])}: expected ca_pem or ca_path, found both`);
  const pair = ["cert_path", "key_path"].filter((key) => at([...tlsPath, key]) !== undefined);
  if (pair.length === 1)
    problems.push(`${where([...tlsPath, pair[0] ?? ""])}: expected cert_path and key_path together`);

  const edge = ["spec", "cluster", "edge"];
  if (at([...edge, "seal"]) === "strict" && at([...edge, "seal_root"]) === undefined)
    problems.push(`${where([...edge, "seal_root"])}: expected the root's key id, because seal is strict`);
  problems.push(...repeated(document, ["spec", "trusted_operators"], where));
  problems.push(...repeated(document, ["spec", "mcp_servers"], where));
  return problems;
}

function repeated(document: Mapping, path: readonly string[], where: Where): string[] {
  const list = valueAt(document, path);
  if (!Array.isArray(list)) return [];
  const names = list.map((entry: unknown) => valueAt(entry, ["name"]));
  return names.flatMap((name, index) =>
    typeof name === "string" && names.indexOf(name) < index
      ? [`${where([...path, index, "name"])}: a second one named ${JSON.stringify(name)}`]
      : [],
  );
}

export interface Surroundings {
  stateDir: string;
  configPath: string;
  home: string;
  /** The host's own name, for a file that names none. */
  hostname: string;
  /** What stands behind a path in the settings, already read. */
  caPem: string | null;
  clientCertificate: { certPem: string; keyPem: string } | null;
  otlpCaPem: string | null;
  seal: Seal;
}

export function edgeConfig({ metadata, spec }: EdgeDocument, around: Surroundings): EdgeConfig {
  const { cluster } = spec;
  const { edge, controller } = cluster;
  const endpoint = parseEndpoint(controller.endpoint);
  if (!endpoint) throw new RangeError(`${controller.endpoint} is no endpoint`);
  const file = (path: string | undefined, name: string) =>
    path === undefined ? join(around.stateDir, name) : resolveFrom(dirname(around.configPath), path, around.home);
  const plaintext = endpoint.scheme === "http" || controller.tls.enabled === false;
  const backoff = edge.stream_reconnect_backoff_secs;
  const { os, arch, local_tools, mount_points, custom_labels } = edge.capabilities;
  return {
    stateDir: around.stateDir,
    configPath: around.configPath,
    name: metadata.name ?? around.hostname,
    nodeId: spec.node.id,
    tenantId: edge.tenant_id,
    controller: {
      host: endpoint.host,
      port: endpoint.port,
      url: plaintext ? endpoint.url.replace(/^https:/, "http:") : endpoint.url,
      tls: plaintext
        ? null
        : {
            pins: controller.tls.pin_sha256,
            caPem: around.caPem,
            serverName: controller.tls.server_name ?? endpoint.host,
            clientCertificate: around.clientCertificate,
          },
    },
    keyPath: file(cluster.node_keypair_path, edgeFileNames.key),
    tokenPath: file(edge.node_security_token_path, edgeFileNames.token),
    controllerKeysPath: join(around.stateDir, edgeFileNames.controllerKeys),
    heartbeatIntervalMs: cluster.heartbeat_interval_secs * 1000,
    backoffScheduleMs: (backoff.length > 0 ? backoff : [60]).map((seconds) => seconds * 1000),
    maxConcurrent: edge.max_concurrent_invocations,
    seal: around.seal,
    sealRoot: edge.seal_root ?? null,
    capabilities: {
      ...(os === undefined ? {} : { os }),
      ...(arch === undefined ? {} : { arch }),
      ...(local_tools === undefined ? {} : { localTools: local_tools }),
      ...(mount_points === undefined ? {} : { mountPoints: mount_points }),
      customLabels: custom_labels,
    },
    contexts: new Map(spec.security_contexts.map((context) => [context.name, context])),
    trustedOperators: spec.trusted_operators.map(({ name, public_key, contexts, not_after }) => ({
      name,
      key: public_key,
      contexts: contexts ?? null,
      notAfterMs: not_after === undefined ? null : Date.parse(not_after),
    })),
    requireOperatorSignature: spec.require_operator_signature,
    mcpServers: spec.mcp_servers.map(({ secret_env, cwd, ...server }) => ({
      ...server,
      secretEnv: secret_env,
      cwd: cwd === undefined ? null : resolveFrom(around.home, cwd, around.home),
    })),
    proxy: edge.proxy ? { httpsProxy: edge.proxy.https_proxy ?? null, noProxy: edge.proxy.no_proxy ?? null } : null,
    logLevel: spec.observability.log_level,
    otlp: spec.observability.otlp ? otlpConfig(spec.observability.otlp, around.otlpCaPem) : null,
  };
}
