/** The controller's keys as this host pinned them: `controller.keys`, written at enrollment and moved only forward. */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { type KeysetFailure, type TrustedKeyset, trustFirst, trustStored, withWithdrawn } from "../envelope/keyset.ts";
import { importPublicKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { writeFileAtomic } from "../platform/private-file.ts";

const schema = z.strictObject({
  controller_id: z.uuid(),
  root_key: z.string(),
  keyset: z.string(),
  /** How the root of this keyset follows from the one that this host enrolled with, once they differ. */
  anchors: z.array(z.string()).optional(),
  /** Pins of TLS keys that an earlier keyset listed and this one does not. */
  withdrawn_pins: z.array(z.string()).optional(),
});

const reenroll = "enroll again with a token issued for this node: aegis edge enroll --force TOKEN";

/**
 * Reads and verifies the file. `sealRoot` is the config's key id of the root: a file for another root, a missing or a
 * damaged one is an error and never a reason to trust less.
 */
export async function loadControllerKeys(path: string, sealRoot: string): Promise<TrustedKeyset> {
  const text = await readFile(path, "utf8").catch((cause: NodeJS.ErrnoException) => {
    const what = cause.code === "ENOENT" ? "is missing" : `cannot be read: ${cause.message}`;
    throw new AegisError("config_invalid", `${path} ${what}; this host is set to seal: strict`, {
      cause,
      hint: reenroll,
    });
  });
  const broken = (what: string) => new AegisError("config_invalid", `${path} ${what}`, { hint: reenroll });
  const parsed = schema.safeParse(parseJson(text));
  if (!parsed.success) throw broken("is damaged");
  const rootKey = importPublicKey(bytes(parsed.data.root_key));
  if (!rootKey) throw broken("holds no usable root key");
  const { keyset, anchors } = parsed.data;
  if (rootKey.kid !== sealRoot && !anchors)
    throw broken(`is for root ${rootKey.kid}, but seal_root in the config is ${sealRoot}`);
  const outcome =
    rootKey.kid === sealRoot
      ? trustStored(rootKey, bytes(keyset))
      : trustFirst(bytes(sealRoot), [...(anchors ?? []), keyset].map(bytes));
  if (outcome.kind === "refused") throw broken(`does not verify: ${outcome.reason satisfies KeysetFailure}`);
  if (outcome.keyset.rootKey.kid !== rootKey.kid) throw broken("names another root than its keyset");
  if (outcome.keyset.controllerId !== parsed.data.controller_id)
    throw broken("names another controller than its keyset");
  return withWithdrawn(outcome.keyset, parsed.data.withdrawn_pins ?? []);
}

export function renderControllerKeys(keyset: TrustedKeyset): string {
  const content = {
    controller_id: keyset.controllerId,
    root_key: text(keyset.rootKey.raw),
    keyset: text(keyset.signed),
    ...(keyset.anchors.length > 1 ? { anchors: keyset.anchors.map(text) } : {}),
    ...(keyset.withdrawnPins.length > 0 ? { withdrawn_pins: [...keyset.withdrawnPins] } : {}),
  };
  return `${JSON.stringify(content, null, 2)}\n`;
}

/** On disk before it is used: a crash in between leaves the older one, which the next handshake brings forward again. */
export const saveControllerKeys = (path: string, keyset: TrustedKeyset): Promise<void> =>
  writeFileAtomic(path, renderControllerKeys(keyset));

const bytes = (base64url: string): Uint8Array => Buffer.from(base64url, "base64url");
const text = (raw: Uint8Array): string => Buffer.from(raw).toString("base64url");

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
