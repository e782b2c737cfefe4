/** `login`: remembers a controller and the token for it, once both have proved good. */
import { createApiClient } from "../api/client.ts";
import { AegisError } from "../errors.ts";
import { listProfiles, saveProfile } from "../identity/profiles.ts";
import { systemClock } from "../platform/clock.ts";
import { command, type Surroundings } from "./command.ts";
import { outputFlag, printResult } from "./options.ts";
import { readToken } from "./secret-input.ts";
import { fingerprintOf, identify, readFingerprint } from "./server-identity.ts";
import { facts } from "./terminal.ts";

export default command({
  example:
    "aegis login https://controller.example:8088 --token-file token.txt --fingerprint SHA256:JTR0fN1l0Hn0OXbO0VYrMPpUJ0eGkXgqbKxyYgfFMCk",
  details: `The token comes from controller token create, the fingerprint from controller ca; both are run on the controller. A
certificate that the system trusts needs no fingerprint. What is remembered lies in ~/.aegis/credentials (0600).`,
  args: {
    url: { type: "positional", valueHint: "URL", description: "where the controller's API is" },
    "token-file": {
      type: "string",
      valueHint: "FILE",
      description: "where the token stands; - is stdin (default), and the stored token stays when that is empty",
    },
    fingerprint: {
      type: "string",
      valueHint: "SHA256:TEXT",
      description: "of the authority that the controller made for itself",
    },
    output: outputFlag,
  },
  async run(given) {
    const { args, env, home, terminal } = given;
    const url = readUrl(args.url);
    const expected = args.fingerprint === undefined ? null : readFingerprint(args.fingerprint);
    // Before the token is read, and long before it is sent.
    const trust = url.protocol === "https:" ? await trustServer(url, expected, given) : plaintext(expected);
    const file = args["token-file"];
    const stored = (await listProfiles({ env, home })).profiles.find((profile) => profile.url === url.origin);
    const token = await readToken("the token", undefined, file ?? "-", given).catch((thrown: unknown) => {
      if (file === undefined && stored && AegisError.from(thrown).code === "usage") return stored.token;
      throw thrown;
    });
    const me = await createApiClient({ url: url.origin, token, caPem: trust.caPem }).whoami();
    const name = url.host.replace(/[^A-Za-z0-9._-]/g, "-").replace(/^[^A-Za-z0-9]+/, "");
    const path = await saveProfile(
      { env, home },
      { name, url: url.origin, token, caPem: trust.caPem, tenantId: me.tenant_id, fingerprint: trust.fingerprint },
    );
    const shown = { profile: name, url: url.origin, ...me, stored_in: path };
    await printResult(given, args.output, shown, () =>
      facts([
        ["profile", name],
        ["controller", url.origin],
        ["name", me.principal],
        ["tenant", me.tenant_id],
        ["stored in", path],
      ]),
    );
    if (env.AEGIS_CONTROLLER || env.AEGIS_USER_TOKEN)
      terminal.warn("AEGIS_CONTROLLER or AEGIS_USER_TOKEN is set and goes before what is stored");
    return undefined;
  },
});

interface Trust {
  /** Null = what the system trusts. */
  caPem: string | null;
  fingerprint: string | null;
}

function readUrl(text: string): URL {
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol)) return url;
  throw new AegisError("usage", `${JSON.stringify(text)} is no http or https URL`, {
    hint: "for example https://controller.example:8088",
  });
}

function plaintext(expected: string | null): Trust {
  if (expected === null) return { caPem: null, fingerprint: null };
  throw new AegisError("usage", "--fingerprint is for https: there is no certificate to compare");
}

async function trustServer(url: URL, expected: string | null, { env, terminal, stop }: Surroundings): Promise<Trust> {
  const { authority, trusted } = await identify(url, env, systemClock);
  if (expected === null && trusted) return { caPem: null, fingerprint: null };
  if (!authority)
    throw new AegisError(
      "unauthenticated",
      `the system does not trust the certificate of ${url.origin}, and it presents no authority of its own`,
      {
        hint: "install the authority that issued it, or set SSL_CERT_FILE",
      },
    );
  const fingerprint = fingerprintOf(authority);
  const accepted = { caPem: authority.toString(), fingerprint };
  if (expected === fingerprint) return accepted;
  if (expected !== null)
    throw new AegisError(
      "unauthenticated",
      `${url.origin} is not the controller you mean: its fingerprint is ${fingerprint}, not ${expected}`,
      {
        hint: "compare with aegis controller ca on the controller; if they differ, something in between answers",
      },
    );
  if (
    await terminal.confirm(
      `The authority of ${url.origin} is not known here. Its fingerprint is\n  ${fingerprint}\nIs that what aegis controller ca shows there?`,
      stop,
    )
  )
    return accepted;
  throw new AegisError(
    "unauthenticated",
    `the authority of ${url.origin} is not known here; its fingerprint is ${fingerprint}`,
    {
      hint: `compare it with aegis controller ca on the controller, then add --fingerprint ${fingerprint}`,
    },
  );
}
