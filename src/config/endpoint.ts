/** Where a controller is, as people write it: a URL, or a bare host that means https. */

export interface Endpoint {
  /** An IPv6 address without its brackets. */
  host: string;
  port: number;
  scheme: "https" | "http";
  /** `https://HOST:PORT`, always with its port. */
  url: string;
}

/** Null for what names no place on the network. */
export function parseEndpoint(text: string): Endpoint | null {
  const hasScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text);
  const url = /^\S+$/.test(text) ? URL.parse(hasScheme ? text : `https://${text}`) : null;
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:")) return null;
  if (url.username || url.password || url.search || url.hash || url.pathname !== "/" || !url.hostname) return null;
  const scheme = url.protocol === "https:" ? "https" : "http";
  const port = url.port === "" ? (scheme === "https" ? 443 : 80) : Number(url.port);
  if (port === 0) return null;
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  return { host, port, scheme, url: `${scheme}://${url.hostname}:${port}` };
}
