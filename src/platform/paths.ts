/** Where things are on this machine unless somebody says otherwise. */
import { isAbsolute, join, resolve } from "node:path";

export type Environment = Readonly<Record<string, string | undefined>>;

/** `AEGIS_HOME`, else `.aegis` in the home directory. Absolute. */
export function aegisHome(env: Environment, home: string): string {
  return env.AEGIS_HOME ? resolve(expandHome(env.AEGIS_HOME, home)) : join(home, ".aegis");
}

/** Where the edge daemon keeps its state. */
export const defaultEdgeDir = (env: Environment, home: string): string => join(aegisHome(env, home), "edge");

/** Where a controller keeps its data. */
export const defaultControllerDir = (env: Environment, home: string): string =>
  join(aegisHome(env, home), "controller");

/** What the edge's files are called inside its state directory. */
export const edgeFileNames = {
  config: "aegis-config.yaml",
  key: "node.key",
  publicKey: "node.key.pub",
  nextKey: "node.key.next",
  token: "node.token",
  enrollmentJwt: "enrollment.jwt",
  controllerKeys: "controller.keys",
} as const;

/** `~` and `~/x` mean the home directory; `~other` stays as it is. */
export function expandHome(path: string, home: string): string {
  return path === "~" ? home : /^~[/\\]/.test(path) ? join(home, path.slice(2)) : path;
}

/** An absolute path: `~` expanded, a relative one taken from `base`. */
export function resolveFrom(base: string, path: string, home: string): string {
  const expanded = expandHome(path, home);
  return isAbsolute(expanded) ? expanded : resolve(base, expanded);
}
