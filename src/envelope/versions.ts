/** Which versions of the sealed protocol this build speaks, and what to say to an end that speaks none of them. */
import { version } from "../version.ts";

export const sealVersions = [1] as const;

export const speaks = (offered: number): boolean => sealVersions.some((ours) => ours === offered);

/**
 * Words for two ends that have no version in common, for people on either side. `us` is what this end is, such as
 * `this controller`, `them` the other one.
 */
export function versionSkew(us: string, them: string, offered: readonly number[]): string {
  // It came from the network: a few are enough to know which end is behind.
  const theirs = offered.slice(0, 8);
  const older = theirs.length > 0 && Math.min(...theirs) > Math.max(...sealVersions) ? us : them;
  const shown = (list: readonly number[]) => (list.length > 0 ? list.join(", ") : "none");
  return `${them} speaks version ${shown(theirs)} of the sealed protocol, and ${us} (aegis ${version}) speaks ${shown(sealVersions)}: update ${older}, with aegis update there`;
}
