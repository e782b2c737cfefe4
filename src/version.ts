/** What this build calls itself. install/build.ts defines these at compile time; a run from source says so. */
declare const AEGIS_VERSION: string | undefined;
declare const AEGIS_COMMIT: string | undefined;
declare const AEGIS_TARGET: string | undefined;
declare const AEGIS_RELEASE_KEY: string | undefined;

export const version = typeof AEGIS_VERSION === "string" ? AEGIS_VERSION : "0.0.0-source";
export const commit = typeof AEGIS_COMMIT === "string" ? AEGIS_COMMIT : "unknown";
export const target = typeof AEGIS_TARGET === "string" ? AEGIS_TARGET : `${process.platform}-${process.arch}`;
/** PEM of the P-256 key that signs the releases this build takes updates from; empty = it takes none. */
export const releaseKeyPem = typeof AEGIS_RELEASE_KEY === "string" ? AEGIS_RELEASE_KEY : "";
