/** What this build calls itself. install/build.ts defines the three at compile time; a run from source says so. */
declare const AEGIS_VERSION: string | undefined;
declare const AEGIS_COMMIT: string | undefined;
declare const AEGIS_TARGET: string | undefined;

export const version = typeof AEGIS_VERSION === "string" ? AEGIS_VERSION : "0.0.0-source";
export const commit = typeof AEGIS_COMMIT === "string" ? AEGIS_COMMIT : "unknown";
export const target = typeof AEGIS_TARGET === "string" ? AEGIS_TARGET : `${process.platform}-${process.arch}`;
