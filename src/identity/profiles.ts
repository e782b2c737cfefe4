/** Which controllers an operator knows, and the token for each: `~/.aegis/credentials`. */
import { chmod, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { AegisError } from "../errors.ts";
import { Secret } from "../platform/log.ts";
import { aegisHome } from "../platform/paths.ts";
import { makeDirectory, PRIVATE_FILE, writeFileAtomic } from "../platform/private-file.ts";
import { readTextFile } from "../platform/text-file.ts";
import type { OperatorPlace } from "./operator-key-path.ts";

export interface Profile {
  name: string;
  /** The REST API's base, without a path. */
  url: string;
  token: Secret;
  /** What the API's certificate must lead to; null = the system's authorities. */
  caPem: string | null;
  tenantId: string | null;
  /** The root key's fingerprint, as it was compared when this profile was made. */
  fingerprint: string | null;
}

const entry = z.object({
  url: z.string(),
  token: z.string().min(1),
  ca_pem: z.string().nullish(),
  tenant_id: z.string().nullish(),
  fingerprint: z.string().nullish(),
});
const schema = z.object({ current: z.string().nullish(), profiles: z.record(z.string(), entry) });
type Content = z.infer<typeof schema>;

export const credentialsPath = ({ env, home }: OperatorPlace): string => join(aegisHome(env, home), "credentials");

const login = "aegis login URL --token-file FILE";

/**
 * The profile named, else the current one. `AEGIS_CONTROLLER` with `AEGIS_USER_TOKEN` stands for a profile of its own;
 * `AEGIS_CONTROLLER` alone chooses the profile for that address, and a token alone replaces the profile's. A stored
 * token never goes to an address it was not stored for.
 */
export async function loadProfile(o: OperatorPlace & { name?: string }): Promise<Profile> {
  const { AEGIS_CONTROLLER: address, AEGIS_USER_TOKEN: token } = o.env;
  const content = await read(o);
  if (address && o.name === undefined) {
    const url = baseUrl(address, "AEGIS_CONTROLLER");
    const known = Object.entries(content.profiles).find(([, profile]) => sameUrl(profile.url, url));
    if (known) return profileOf(known[0], known[1], token);
    if (token)
      return { name: "environment", url, token: new Secret(token), caPem: null, tenantId: null, fingerprint: null };
    throw new AegisError("unauthenticated", `AEGIS_CONTROLLER is ${url}, and there is no token for it`, {
      hint: `set AEGIS_USER_TOKEN too, or ${login.replace("URL", url)}`,
    });
  }
  const name = o.name ?? content.current ?? Object.keys(content.profiles)[0];
  const chosen = name !== undefined && Object.hasOwn(content.profiles, name) ? content.profiles[name] : undefined;
  if (name !== undefined && chosen) return profileOf(name, chosen, token);
  const names = Object.keys(content.profiles);
  const what =
    name === undefined
      ? "no controller is known here"
      : `${credentialsPath(o)} has no profile ${JSON.stringify(name)}${names.length > 0 ? `, only ${names.join(", ")}` : ""}`;
  throw new AegisError("unauthenticated", what, {
    hint: `${login}, or set AEGIS_CONTROLLER and AEGIS_USER_TOKEN`,
  });
}

/** Every profile in the file, and which one is current. */
export async function listProfiles(o: OperatorPlace): Promise<{ current: string | null; profiles: Profile[] }> {
  const content = await read(o);
  const profiles = Object.entries(content.profiles).map(([name, profile]) => profileOf(name, profile, undefined));
  return { current: content.current ?? profiles[0]?.name ?? null, profiles };
}

/** Stores the profile under its name, makes it the current one, and answers the file's path. */
export async function saveProfile(o: OperatorPlace, profile: Profile): Promise<string> {
  if (!profileName.test(profile.name))
    throw new AegisError("usage", `${JSON.stringify(profile.name)} is no name for a profile`, {
      hint: "use letters, digits, dots, hyphens and underscores",
    });
  const content = await read(o);
  content.profiles[profile.name] = {
    url: baseUrl(profile.url, "the controller's address"),
    token: profile.token.reveal(),
    ca_pem: profile.caPem,
    tenant_id: profile.tenantId,
    fingerprint: profile.fingerprint,
  };
  return await write(o, { ...content, current: profile.name });
}

/** Forgets a profile. False when there was none of this name. */
export async function removeProfile(o: OperatorPlace, name: string): Promise<boolean> {
  const content = await read(o);
  if (!Object.hasOwn(content.profiles, name)) return false;
  delete content.profiles[name];
  const [next] = Object.keys(content.profiles);
  await write(o, { ...content, current: content.current === name ? (next ?? null) : (content.current ?? null) });
  return true;
}

const profileName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

function profileOf(name: string, stored: z.infer<typeof entry>, token: string | undefined): Profile {
  return {
    name,
    url: stored.url,
    token: new Secret(token || stored.token),
    caPem: stored.ca_pem ?? null,
    tenantId: stored.tenant_id ?? null,
    fingerprint: stored.fingerprint ?? null,
  };
}

async function read(o: OperatorPlace): Promise<Content> {
  const path = credentialsPath(o);
  const text = await readTextFile(path);
  if (text === null || text.trim() === "") return { current: null, profiles: Object.create(null) };
  await closeToOthers(path);
  const parsed = schema.safeParse(await contentOf(path, text));
  if (parsed.success) return parsed.data;
  const [problem] = parsed.error.issues;
  throw new AegisError("config_invalid", `${path} is damaged at ${problem?.path.join(".") || "its top level"}`, {
    hint: `move it away, then ${login}`,
  });
}

/** As it is written here it is JSON; people may write YAML, whose parser is loaded only then. */
async function contentOf(path: string, text: string): Promise<unknown> {
  try {
    return JSON.parse(text);
  } catch {
    const { parseYaml } = await import("../platform/yaml-file.ts");
    return parseYaml(path, text);
  }
}

/** Bearer tokens that others can read are nobody's secret. */
async function closeToOthers(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const { mode } = await stat(path);
  if ((mode & 0o077) === 0) return;
  await chmod(path, PRIVATE_FILE).catch((cause: Error) => {
    throw new AegisError(
      "config_invalid",
      `${path} can be read by others, and cannot be closed to them: ${cause.message}`,
      {
        cause,
      },
    );
  });
}

async function write(o: OperatorPlace, content: Content): Promise<string> {
  const path = credentialsPath(o);
  await makeDirectory(aegisHome(o.env, o.home));
  await writeFileAtomic(path, `${JSON.stringify(content, null, 2)}\n`);
  return path;
}

function baseUrl(text: string, what: string): string {
  const url = URL.parse(text);
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.search || url.hash || url.pathname !== "/")
    throw new AegisError(
      "usage",
      `${what} ${JSON.stringify(text)} is not a URL such as https://controller.example:8088`,
    );
  return url.origin;
}

const sameUrl = (left: string, right: string): boolean => URL.parse(left)?.origin === right;
