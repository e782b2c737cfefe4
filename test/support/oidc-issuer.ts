/** A real OpenID provider on a port of its own, whose keys can be exchanged while it runs. */
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair } from "jose";

type ProviderClass = new (issuer: string, settings: unknown) => { callback(): RequestListener; proxy: boolean };
// It brings no types.
const { default: Provider } = (await import("oidc-provider" as string)) as { default: ProviderClass };

export interface OidcIssuer {
  issuer: string;
  /** An access token for `audience`, with these claims, as the service that asks for it gets it. */
  token(audience: string, claims: Record<string, unknown>, lifeSecs?: number): Promise<string>;
  /** New keys from now on; what the old ones signed is void. */
  rotate(): Promise<void>;
  /** How often it was asked for its keys. */
  readonly keysAsked: number;
  close(): Promise<void>;
}

export async function oidcIssuer(): Promise<OidcIssuer> {
  let serve: RequestListener = (_, response) => void response.writeHead(503).end();
  let keysAsked = 0;
  const server: Server = createServer((request, response) => {
    if (request.url === "/jwks") keysAsked++;
    serve(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  let claims: Record<string, unknown> = {};
  let lifeSecs = 600;

  async function rotate(): Promise<void> {
    const { privateKey } = await generateKeyPair("ES256", { extractable: true });
    const key = { ...(await exportJWK(privateKey)), kid: crypto.randomUUID(), alg: "ES256", use: "sig" };
    const provider = new Provider(issuer, {
      clients: [
        {
          ...{ client_id: "robot", client_secret: "robot-secret", redirect_uris: [], response_types: [] },
          ...{ grant_types: ["client_credentials"], id_token_signed_response_alg: "ES256" },
        },
      ],
      jwks: { keys: [key] },
      cookies: { keys: ["for tests"] },
      extraTokenClaims: () => claims,
      features: {
        clientCredentials: { enabled: true },
        devInteractions: { enabled: false },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: (_: unknown, audience: string) => ({
            ...{ scope: "", audience, accessTokenFormat: "jwt", accessTokenTTL: lifeSecs },
            jwt: { sign: { alg: "ES256" } },
          }),
        },
      },
      ttl: { ClientCredentials: () => lifeSecs },
    });
    serve = provider.callback();
  }
  await rotate();

  return {
    issuer,
    rotate,
    get keysAsked() {
      return keysAsked;
    },
    async token(audience, wanted, seconds = 600) {
      claims = wanted;
      lifeSecs = seconds;
      const response = await fetch(`${issuer}/token`, {
        method: "POST",
        headers: { authorization: `Basic ${btoa("robot:robot-secret")}` },
        body: new URLSearchParams({ grant_type: "client_credentials", resource: audience }),
      });
      const answer = (await response.json()) as { access_token?: string };
      if (answer.access_token) return answer.access_token;
      throw new Error(`the issuer answered ${response.status}: ${JSON.stringify(answer)}`);
    },
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
