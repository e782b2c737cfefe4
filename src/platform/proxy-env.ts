/** Which proxy a connection to the controller takes: the config's, else HTTPS_PROXY, unless NO_PROXY names the target. */
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";
import { AegisError } from "../errors.ts";
import { Secret } from "./log.ts";
import type { Environment } from "./paths.ts";

export interface ProxyRoute {
  /** Whether the connection to the proxy itself is TLS. */
  secure: boolean;
  host: string;
  port: number;
  /** `user:password` for Proxy-Authorization: Basic; null = none. */
  auth: Secret | null;
  /** Where it was set, for people: `HTTPS_PROXY`, or the config's key. */
  from: string;
}

export interface ProxySettings {
  /** What the config says; it wins over the environment. An empty text means no proxy, whatever the environment says. */
  httpsProxy?: string;
  noProxy?: string;
}

/** The proxy for `host:port`, or null for a direct connection. Throws `config_invalid` naming a value that is no proxy. */
export function proxyFor(
  target: { host: string; port: number },
  settings: ProxySettings,
  env: Environment,
): ProxyRoute | null {
  const [from, text] = firstSet([
    ["cluster.edge.proxy.https_proxy", settings.httpsProxy],
    ["HTTPS_PROXY", env.HTTPS_PROXY],
    ["https_proxy", env.https_proxy],
  ]);
  if (!text) return null;
  const [, exempt = ""] = firstSet([
    ["cluster.edge.proxy.no_proxy", settings.noProxy],
    ["NO_PROXY", env.NO_PROXY],
    ["no_proxy", env.no_proxy],
  ]);
  return isExempt(target, exempt) ? null : readProxy(text, from);
}

/** The first that is set at all; in the environment an empty value counts as unset. */
function firstSet(
  places: readonly (readonly [name: string, value: string | undefined])[],
): readonly [string, string | undefined] {
  const found = places.find(([name, value]) => value !== undefined && (value !== "" || name.includes(".")));
  return found ?? ["", undefined];
}

export function readProxy(text: string, from: string): ProxyRoute {
  const problem = (what: string) =>
    new AegisError("config_invalid", `${from} ${what}`, {
      hint: `write it as http://HOST:PORT, such as ${from}=http://proxy.example:3128`,
    });
  let url: URL;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`);
  } catch {
    // The value itself may hold a password.
    throw problem("is not an address of a proxy");
  }
  if (url.protocol !== "http:" && url.protocol !== "https:")
    throw problem(`asks for ${url.protocol.slice(0, -1)}, and only http and https proxies are known`);
  const secure = url.protocol === "https:";
  const auth = url.username || url.password ? new Secret(`${decoded(url.username)}:${decoded(url.password)}`) : null;
  return { secure, host: bare(url.hostname), port: Number(url.port || (secure ? 443 : 80)), auth, from };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** An IPv6 address without its brackets. */
const bare = (host: string): string => host.replace(/^\[|\]$/g, "");

/**
 * Whether NO_PROXY names the target: `*`, a host, a domain and everything below it (with or without a leading dot or
 * `*.`), an address, a CIDR block, each with an optional port.
 */
export function isExempt({ host, port }: { host: string; port: number }, noProxy: string): boolean {
  const name = bare(host).toLowerCase().replace(/\.$/, "");
  return noProxy
    .split(/[\s,]+/)
    .filter((entry) => entry !== "")
    .some((entry) => matches(entry.toLowerCase(), name, port));
}

function matches(entry: string, name: string, port: number): boolean {
  if (entry === "*") return true;
  const { text, port: only } = splitPort(entry);
  if (only !== null && only !== port) return false;
  const address = isIP(name) ? ipaddr.process(name) : null;
  if (text.includes("/")) return address !== null && inBlock(address, text);
  if (isIP(text)) return address !== null && ipaddr.process(text).toString() === address.toString();
  const domain = text.replace(/^\*?\./, "").replace(/\.$/, "");
  return domain !== "" && address === null && (name === domain || name.endsWith(`.${domain}`));
}

/** `host:443`, `[::1]:443`; a bare IPv6 address has colons of its own and no port. */
function splitPort(entry: string): { text: string; port: number | null } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(entry);
  if (match) return { text: match[1] ?? match[2] ?? "", port: Number(match[3]) };
  return { text: bare(entry), port: null };
}

function inBlock(address: ipaddr.IPv4 | ipaddr.IPv6, block: string): boolean {
  try {
    const [network, bits] = ipaddr.parseCIDR(block);
    return network.kind() === address.kind() && address.match(network, bits);
  } catch {
    return false; // an entry that is no block exempts nothing
  }
}
