/** The settings that an enrollment writes: fresh ones, or the owner's with the connection put into them. */
import { isDeepStrictEqual } from "node:util";
import { parseYAML, stringifyYAML } from "confbox/yaml";
import { judge } from "../config/edge.ts";
import { apiVersion, asLayer, isMapping, kind, located, type Mapping } from "../config/layers.ts";
import { valueAt } from "../config/problems.ts";
import { AegisError } from "../errors.ts";
import { defaultContext, operatorContext } from "../policy/written-contexts.ts";

/** What the enrollment decides, whatever else the file says. */
export interface Connection {
  name: string;
  nodeId: string;
  endpoint: string;
  tenantId: string;
  seal: "strict" | "compat";
  /** Key id of the root, base64url; null for an issuer that names none. */
  sealRoot: string | null;
  pins: readonly string[];
  caPem: string | null;
}

/** What the owner chose to let the controller do and know. */
export interface Choices {
  labels: Readonly<Record<string, string>>;
  /** Absolute real paths. */
  folders: readonly string[];
  fullAccess: boolean;
  /** Without comments, and without what has a default. */
  minimal: boolean;
}

export function freshConfig(connection: Connection, { labels, folders, fullAccess, minimal }: Choices): string {
  const { cluster, ...rest } = specOf(connection);
  const contexts = [defaultContext({ folders }), ...(fullAccess ? [operatorContext()] : [])];
  const custom = Object.keys(labels).length > 0 ? { capabilities: { custom_labels: { ...labels } } } : {};
  const settings = minimal ? {} : { stream_reconnect_backoff_secs: [1, 2, 5, 15, 60], max_concurrent_invocations: 16 };
  const document = {
    apiVersion,
    kind,
    metadata: { name: connection.name },
    spec: {
      ...rest,
      cluster: {
        ...cluster,
        ...(minimal ? {} : { heartbeat_interval_secs: 30 }),
        edge: { ...cluster.edge, ...custom, ...settings },
      },
      security_contexts: contexts,
    },
  };
  const text = inYaml(document);
  return minimal ? text : commented(text);
}

/** Ends with a line break: owners append. */
const inYaml = (document: Mapping): string =>
  `${stringifyYAML(document, { lineWidth: 120, noRefs: true }).trimEnd()}\n`;

function specOf({ nodeId, endpoint, tenantId, seal, sealRoot, pins, caPem }: Connection) {
  const tls = { ...(pins.length > 0 ? { pin_sha256: [...pins] } : {}), ...(caPem ? { ca_pem: caPem } : {}) };
  return {
    node: { id: nodeId, type: "edge" },
    cluster: {
      enabled: true,
      role: "edge",
      controller: { endpoint, ...(Object.keys(tls).length > 0 ? { tls } : {}) },
      edge: { tenant_id: tenantId, seal, ...(sealRoot ? { seal_root: sealRoot } : {}) },
    },
  };
}

const comments: ReadonlyArray<readonly [line: RegExp, comment: string]> = [
  [/^apiVersion:/m, "# This host's settings. Yours: nothing that comes over the network changes this file."],
  [/^ {2}node:/m, "  # Who this host is to its controller; it stays the same for as long as the host is enrolled."],
  [/^ {2}cluster:/m, "  # How the controller is reached, and which keys prove that it is the right one."],
  [
    /^ {2}security_contexts:/m,
    "  # What callers may do here. No context, no call: aegis edge policy test shows what a call would meet.",
  ],
];

const commented = (text: string): string =>
  comments.reduce((all, [line, comment]) => all.replace(line, (found) => `${comment}\n${found}`), text);

/**
 * The owner's file with the connection put into it: everything else stays as it is, labels and folders are added.
 * `text` must be YAML with a mapping at its top. Null when nothing would change.
 */
export function mergedConfig(path: string, text: string, connection: Connection, choices: Choices): string | null {
  const existing = asLayer(path, parseYAML(text));
  const before = { apiVersion, kind, ...existing.document };
  const document: Mapping = structuredClone(before);
  const spec = mapping(document, "spec");
  const fresh = specOf(connection);
  const metadata = mapping(document, "metadata");
  metadata.name = connection.name;
  Object.assign(mapping(spec, "node"), fresh.node);
  const cluster = mapping(spec, "cluster");
  Object.assign(cluster, { enabled: true, role: "edge" });
  const controller = mapping(cluster, "controller");
  controller.endpoint = connection.endpoint;
  const tls = mapping(controller, "tls");
  // Another way to trust must not stay beside the one that the token brings.
  for (const key of ["ca_pem", "ca_path", "pin_sha256", "enabled"]) delete tls[key];
  Object.assign(tls, fresh.cluster.controller.tls);
  if (Object.keys(tls).length === 0) delete controller.tls;
  const edge = mapping(cluster, "edge");
  if (!connection.sealRoot) delete edge.seal_root;
  Object.assign(edge, fresh.cluster.edge);
  if (Object.keys(choices.labels).length > 0)
    Object.assign(mapping(mapping(edge, "capabilities"), "custom_labels"), choices.labels);
  grant(spec, choices);
  if (!existing.bare && isDeepStrictEqual(document, before)) return null;
  return inYaml(document);
}

/** The owner's file with `folders` (absolute real paths) readable for the context `default`. Null when nothing would change. */
export function withFolders(path: string, text: string, folders: readonly string[]): string | null {
  const existing = asLayer(path, parseYAML(text));
  const before = { apiVersion, kind, ...existing.document };
  const document: Mapping = structuredClone(before);
  grant(mapping(document, "spec"), { labels: {}, folders, fullAccess: false, minimal: false });
  if (isDeepStrictEqual(document, before)) return null;
  return inYaml(document);
}

/** Contexts the owner wrote stay; a folder allowed now is added to `default`, and `operator` where there is none. */
function grant(spec: Mapping, { folders, fullAccess }: Choices): void {
  const contexts: unknown[] = Array.isArray(spec.security_contexts) ? spec.security_contexts : [];
  const named = (name: string) => contexts.find((context) => isMapping(context) && context.name === name);
  const own = named("default");
  if (!own && contexts.length === 0) contexts.push(defaultContext({ folders }));
  else if (folders.length > 0) {
    const added = defaultContext({ folders }) as Mapping;
    if (isMapping(own)) {
      const extra = (added.capabilities as Mapping[]).filter((one) => "path_allowlist" in one);
      const present = Array.isArray(own.capabilities) ? own.capabilities : [];
      own.capabilities = [
        ...present,
        ...extra.filter((one) => !present.some((other) => isDeepStrictEqual(other, one))),
      ];
    } else contexts.push(added);
  }
  if (fullAccess && !named("operator")) contexts.push(operatorContext());
  spec.security_contexts = contexts;
}

function mapping(parent: Mapping, key: string): Mapping {
  const existing = parent[key];
  if (isMapping(existing)) return existing;
  const made: Mapping = {};
  parent[key] = made;
  return made;
}

/** Refuses what `edge run` would refuse, before a token is spent on it. */
export function requireValid(path: string, text: string): void {
  const layer = asLayer(path, parseYAML(text));
  const judged = judge(layer.document, (at) => located([layer], at));
  const problems = [...layer.problems, ...(judged.kind === "invalid" ? judged.problems : [])];
  if (problems.length === 0) return;
  throw new AegisError("config_invalid", `the settings would not be valid:\n  ${problems.join("\n  ")}`, {
    hint: `correct ${path} first, or let a fresh one be written with --force: the present one is kept as ${path}.bak`,
  });
}

/** What an existing file says about a connection; null where it says nothing of that. */
export interface Present {
  nodeId: string | null;
  name: string | null;
  endpoint: string | null;
  tenantId: string | null;
  sealRoot: string | null;
  seal: string | null;
  keyPath: string | null;
  tokenPath: string | null;
}

export function presentIn(path: string, text: string): Present {
  const { document, problems } = asLayer(path, parseYAML(text));
  const [problem] = problems;
  if (problem) throw new AegisError("config_invalid", problem);
  const at = (...keys: string[]): string | null => {
    const value = valueAt(document, keys);
    return typeof value === "string" && value !== "" ? value : null;
  };
  const cluster = ["spec", "cluster"];
  return {
    nodeId: at("spec", "node", "id"),
    name: at("metadata", "name"),
    endpoint: at(...cluster, "controller", "endpoint"),
    tenantId: at(...cluster, "edge", "tenant_id"),
    sealRoot: at(...cluster, "edge", "seal_root"),
    seal: at(...cluster, "edge", "seal"),
    keyPath: at(...cluster, "node_keypair_path"),
    tokenPath: at(...cluster, "edge", "node_security_token_path"),
  };
}
