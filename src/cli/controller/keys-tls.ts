/** What a change of the controller's TLS key means for hosts and operators, in words. */
import { loadControllerConfig } from "../../config/controller.ts";
import { readEndpoint } from "../../controller/endpoint.ts";
import type { KeyChangeOptions } from "../../controller/key-rotation.ts";
import type { TlsChange } from "../../controller/tls-pins.ts";
import type { Store } from "../../store/store.ts";
import type { Surroundings } from "../command.ts";
import { printResult } from "../options.ts";
import { pinShown } from "../server-identity.ts";
import { facts } from "../terminal.ts";

/** The name that a new certificate is for. */
export async function withHost(options: KeyChangeOptions): Promise<KeyChangeOptions & { host: string }> {
  const { publicEndpoint } = await loadControllerConfig(options.dataDir);
  return { ...options, host: readEndpoint(publicEndpoint).host };
}

/** Names of hosts that a person is shown. */
const namesShown = 10;

export async function tellTlsChange(
  given: Surroundings,
  output: string | undefined,
  store: Store,
  { version, current, next, changed }: TlsChange,
): Promise<void> {
  // A CA's fingerprint is what operators compare; it stands last in the chain.
  const shownOf = (pins: readonly string[] | undefined) => pins?.at(-1) && pinShown(pins.at(-1) ?? "");
  const behind = (await store.nodesBehind(version)).map(({ displayName, hostName }) => displayName ?? hostName);
  const compat = await store.compatNodeCount();
  const shown = {
    ...{ version, changed, ca_fingerprint: shownOf(current.pins), next_ca_fingerprint: shownOf(next?.pins) ?? null },
    ...{ hosts_behind: behind.length, compat_hosts: compat },
  };
  await printResult(given, output, shown, () =>
    facts([
      ["CA", shown.ca_fingerprint ?? "none"],
      ["CA to follow", shown.next_ca_fingerprint ?? "none"],
      ["keyset", `version ${version}`],
      ["not heard yet", behind.length === 0 ? "every host has" : behind.slice(0, namesShown).join(", ")],
    ]),
  );
  if (next)
    given.terminal.note(
      `the running controller serves the new certificate as soon as every host has heard. Operators who signed in with a fingerprint do it again then: aegis login URL --fingerprint ${shown.next_ca_fingerprint}`,
    );
  if (compat > 0)
    given.terminal.warn(
      `${compat} hosts with compat sessions hear nothing of keys: enroll them again after the change (aegis edge token issue --for NODE --compat)`,
    );
}
