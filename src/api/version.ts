/** The version of the REST API, which every path begins with: another one is another language. */
export const apiVersion = 1;

/** On every answer of a controller. */
export const apiVersionHeader = "aegis-api-version";

/** The version in a path such as `/v2/whoami`; null when it begins otherwise. */
export function versionOf(path: string): number | null {
  const [, digits] = /^\/v(\d{1,4})(?:\/|$)/.exec(path) ?? [];
  return digits === undefined ? null : Number(digits);
}
