/** The way from this host's settings to its controller. */
import type { EdgeConfig } from "../config/edge.ts";
import type { Environment } from "../platform/paths.ts";
import { proxyFor } from "../platform/proxy-env.ts";
import { grpcLink } from "./grpc-link.ts";
import type { ControllerLink } from "./link.ts";

export function dialler({ controller, proxy }: EdgeConfig, env: Environment): ControllerLink {
  const { host, port, tls } = controller;
  const settings = {
    ...(proxy?.httpsProxy == null ? {} : { httpsProxy: proxy.httpsProxy }),
    ...(proxy?.noProxy == null ? {} : { noProxy: proxy.noProxy }),
  };
  return grpcLink({ host, port, tls: tls && { ...tls, proxy: proxyFor({ host, port }, settings, env) } });
}
