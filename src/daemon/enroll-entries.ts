/** Each file that an enrollment creates, keeps, replaces or removes, and why. */
import type { Facts } from "./enroll-facts.ts";

export type PlanAction = "create" | "reuse" | "overwrite" | "merge" | "remove" | "conflict";

export interface PlanEntry {
  what: "directory" | "settings" | "key" | "controller keys" | "node token" | "enrollment token";
  path: string;
  action: PlanAction;
  why: string;
}

/** How a conflict may be settled: by keeping what is there, or by replacing it. */
export type Settlement = "keep" | "overwrite";

export type Settled = Readonly<Partial<Record<"key" | "settings", Settlement>>>;

/** `differs`: in words, how the settings belong to another controller than the token. */
export function planEntries(
  facts: Facts,
  seal: "strict" | "compat",
  { key, settings }: Settled,
  differs: string | null,
): PlanEntry[] {
  const left: PlanEntry = {
    what: "enrollment token",
    path: facts.paths.enrollmentJwt,
    action: "remove",
    why: "it is of no use any more",
  };
  return [
    directoryEntry(facts),
    settingsEntry(facts, settings, differs),
    keyEntry(facts, key),
    ...controllerKeysEntry(facts, seal),
    { what: "node token", path: facts.tokenPath, ...replaced(facts.token) },
    ...(facts.enrollmentJwt ? [left] : []),
  ];
}

const replaced = (exists: boolean) =>
  exists
    ? ({ action: "overwrite", why: "it is replaced by what the controller answers" } as const)
    : ({ action: "create", why: "it comes from the controller" } as const);

function controllerKeysEntry({ paths, controllerKeys }: Facts, seal: "strict" | "compat"): PlanEntry[] {
  const entry = { what: "controller keys", path: paths.controllerKeys } as const;
  if (seal === "strict") return [{ ...entry, ...replaced(controllerKeys) }];
  return controllerKeys ? [{ ...entry, action: "remove", why: "sessions that are not strict believe no keys" }] : [];
}

const directoryEntry = ({ paths, directory }: Facts): PlanEntry => ({
  what: "directory",
  path: paths.dir,
  ...(directory
    ? { action: "reuse", why: "it exists" }
    : { action: "create", why: "this host's state, closed to everybody else" }),
});

function keyEntry({ key, keyPath }: Facts, settlement: Settlement | undefined): PlanEntry {
  const entry = (action: PlanAction, why: string): PlanEntry => ({ what: "key", path: keyPath, action, why });
  if (key.kind === "absent") return entry("create", "this host's own key; it never leaves the host");
  if (settlement === "overwrite") return entry("overwrite", "a new key is drawn; the old one goes to archive/");
  if (settlement === "keep") return entry("reuse", "it is a valid key");
  return entry("conflict", key.kind === "damaged" ? `it is damaged (${key.why})` : "this host has a key");
}

function settingsEntry(
  { config, configPath }: Facts,
  settlement: Settlement | undefined,
  differs: string | null,
): PlanEntry {
  const entry = (action: PlanAction, why: string): PlanEntry => ({ what: "settings", path: configPath, action, why });
  if (config.kind === "absent") return entry("create", "connection and default policy");
  if (settlement === "overwrite") return entry("overwrite", "fresh settings; the old ones are kept as .bak");
  if (config.kind === "damaged") return entry("conflict", `they are damaged (${config.why})`);
  if (differs) return entry("conflict", differs);
  return entry("merge", "your values stay, the connection is set; the old file is kept as .bak");
}
