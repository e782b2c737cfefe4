/** How a host that is about to enroll reaches its controller: what its owner has written down before there was any connection. */
import { dirname, join } from "node:path";
import { type Layer, merged, readLayer } from "../config/layers.ts";
import { valueAt } from "../config/problems.ts";
import { AegisError } from "../errors.ts";
import { aegisHome, type Environment, resolveFrom } from "../platform/paths.ts";
import type { ProxySettings } from "../platform/proxy-env.ts";
import { readTextFile } from "../platform/text-file.ts";

export interface WrittenWay {
  proxy: ProxySettings;
  serverName: string | null;
  /** What a front end that asks for a certificate is shown. */
  clientCertificate: { certPem: string; keyPem: string } | null;
}

export interface WhereWritten {
  configPath: string;
  /** Whether what stands in that file now will stay. */
  keeps: boolean;
  env: Environment;
  home: string;
}

/** From the host's own settings, where they stay, above what `~/.aegis/config.yaml` says. */
export async function writtenWay({ configPath, keeps, env, home }: WhereWritten): Promise<WrittenWay> {
  const shared = join(aegisHome(env, home), "config.yaml");
  const found = await Promise.all([readLayer(shared), keeps ? readLayer(configPath) : null]);
  const document = merged(found.filter((layer): layer is Layer => layer !== null));
  const at = (...path: string[]): string | null => {
    const value = valueAt(document, ["spec", "cluster", ...path]);
    return typeof value === "string" ? value : null;
  };
  const httpsProxy = at("edge", "proxy", "https_proxy");
  const noProxy = at("edge", "proxy", "no_proxy");
  const read = async (key: "cert_path" | "key_path"): Promise<string | null> => {
    const path = at("controller", "tls", key);
    if (!path) return null;
    const file = resolveFrom(dirname(configPath), path, home);
    const text = await readTextFile(file);
    if (text === null) throw new AegisError("config_invalid", `cluster.controller.tls.${key}: ${file} does not exist`);
    return text;
  };
  const [certPem, keyPem] = [await read("cert_path"), await read("key_path")];
  return {
    proxy: { ...(httpsProxy === null ? {} : { httpsProxy }), ...(noProxy === null ? {} : { noProxy }) },
    serverName: at("controller", "tls", "server_name") || null,
    clientCertificate: certPem && keyPem ? { certPem, keyPem } : null,
  };
}
