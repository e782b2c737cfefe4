/** The way from this host's settings to its controller. */
import type { EdgeConfig } from "../config/edge.ts";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import type { Environment } from "../platform/paths.ts";
import { proxyFor } from "../platform/proxy-env.ts";
import { grpcLink } from "./grpc-link.ts";
import type { ControllerLink } from "./link.ts";
import type { TlsTrust } from "./tls-trust.ts";

/** `keyset` is asked before each connection for what is trusted then. */
export function dialler(
  { controller, proxy }: EdgeConfig,
  env: Environment,
  keyset: () => TrustedKeyset | null,
): ControllerLink {
  const { host, port, tls } = controller;
  const settings = {
    ...(proxy?.httpsProxy == null ? {} : { httpsProxy: proxy.httpsProxy }),
    ...(proxy?.noProxy == null ? {} : { noProxy: proxy.noProxy }),
  };
  const way = { proxy: proxyFor({ host, port }, settings, env) };
  return grpcLink({ host, port, tls: tls && (() => ({ ...tls, ...vouchedBy(keyset()), ...way })) });
}

/** What the controller's root says of TLS keys, for the trust in a connection. */
export const vouchedBy = (keyset: TrustedKeyset | null): Pick<TlsTrust, "vouchedPins" | "withdrawnPins"> =>
  keyset ? { vouchedPins: keyset.tlsPins, withdrawnPins: keyset.withdrawnPins } : {};
