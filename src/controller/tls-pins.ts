/**
 * Which TLS keys the root vouches for: the one that hosts meet, and before another takes its place that one too. Hosts that
 * have heard of it follow whatever certificate comes; a key that is listed no more is refused by every host that has heard.
 */
import { trustFirst } from "../envelope/keyset.ts";
import { sha256 } from "../envelope/statement.ts";
import { AegisError } from "../errors.ts";
import type { Queries } from "../store/store.ts";
import { currentKeys, type KeyChangeOptions, publish, rowOf } from "./key-rotation.ts";
import { nextContent } from "./keyset-content.ts";
import { dropNextTls, loadTls, nextTls, prepareNextTls, type TlsIdentity } from "./tls.ts";

export interface TlsChange {
  /** The keyset that lists the pins as they are now. */
  version: number;
  current: TlsIdentity;
  /** What follows it; null when nothing does. */
  next: TlsIdentity | null;
  /** False: it was so before. */
  changed: boolean;
}

/** In order, too: where only so many fit, the first stay. */
export const samePins = (left: readonly string[], right: readonly string[]): boolean =>
  left.length === right.length && left.every((pin, at) => pin === right[at]);

export const together = (...lists: ReadonlyArray<readonly string[]>): string[] => [...new Set(lists.flat())];

/** A keyset with these pins and nothing else changed. Its version, or that of the newest one when it lists them already. */
export async function publishPins(options: KeyChangeOptions, pins: readonly string[], change: string): Promise<number> {
  const { store, clock } = options;
  const { keyset, root } = await currentKeys(options);
  if (samePins(keyset.tlsPins, pins)) return keyset.version;
  if (await store.plannedKeyset())
    throw new AegisError("conflict", "a change of keys is under way, and its end is signed for the TLS keys of now", {
      hint: "it ends by itself while the controller runs; then try again",
    });
  const now = clock.now();
  const content = { ...nextContent(keyset, now, (keys) => [...keys]), tlsPins: pins };
  await store.transaction((tx) => publish(tx, keyset, rowOf(content, root), change, now));
  return content.version;
}

/** The keyset by which hosts first heard of a pin; null when none lists it. */
export async function listedSince(queries: Pick<Queries, "keysetsAfter">, pin: string): Promise<number | null> {
  for (const { version, signed, rootKey } of await queries.keysetsAfter(0)) {
    const outcome = trustFirst(sha256(rootKey), [signed]);
    if (outcome.kind === "trusted" && outcome.keyset.tlsPins.includes(pin)) return version;
  }
  return null;
}

/** A new CA and certificate are made and published; the running controller uses them once every host has heard. */
export async function rotateTls(options: KeyChangeOptions & { host: string }): Promise<TlsChange> {
  const { dataDir, host, clock } = options;
  const current = await ownTls(options);
  const before = await nextTls(dataDir);
  const next = await prepareNextTls(dataDir, host, clock.now());
  const pins = together(current.pins, next.pins);
  const known = (await currentKeys(options)).keyset.version;
  const version = await publishPins(options, pins, `TLS key ${next.pins[1]} is published`);
  return { version, current, next, changed: before === null || version > known };
}

/** Hosts that hear of it refuse the TLS key of now, and the running controller uses another at once. */
export async function revokeTls(options: KeyChangeOptions & { host: string }): Promise<TlsChange> {
  const { dataDir, host, clock } = options;
  const current = await ownTls(options);
  const next = await prepareNextTls(dataDir, host, clock.now());
  const version = await publishPins(options, next.pins, `TLS key ${current.pins[1]} is revoked`);
  return { version, current, next, changed: true };
}

/** One published pin goes, by the beginning of its fingerprint. Null when none begins so. */
export async function revokePin(
  wanted: string,
  options: KeyChangeOptions & { host: string },
): Promise<TlsChange | null> {
  const { dataDir } = options;
  const { keyset } = await currentKeys(options);
  const text = wanted
    .replace(/^(?:SHA256:|spki-sha256:)/, "")
    .replaceAll("+", "-")
    .replaceAll("/", "_");
  const found = keyset.tlsPins.filter((pin) => text.length >= 6 && pin.startsWith(`spki-sha256:${text}`));
  const [pin] = found;
  if (!pin || found.length > 1) return null;
  const [current, next] = [await loadTls(dataDir), await nextTls(dataDir)];
  if (current.pins.includes(pin)) return await revokeTls(options);
  const gone = next?.pins.includes(pin) ? next.pins : [pin];
  const left = keyset.tlsPins.filter((one) => !gone.includes(one));
  if (left.length === 0)
    throw new AegisError(
      "conflict",
      "it is the only TLS key that hosts are told of: they would go back to the first one",
      {
        hint: "replace the certificate first; the running controller publishes the new one",
      },
    );
  // Published before its file goes: a crash in between leaves a key that is published again, and revoked again.
  const version = await publishPins(options, left, `TLS key ${pin} is revoked`);
  if (gone.length > 1) await dropNextTls(dataDir);
  return { version, current, next: gone.length > 1 ? null : next, changed: true };
}

/** The controller's own identity, if that is what hosts meet. */
async function ownTls(options: KeyChangeOptions): Promise<TlsIdentity> {
  const { keyset } = await currentKeys(options);
  const [current, next] = [await loadTls(options.dataDir), await nextTls(options.dataDir)];
  const own = together(current.pins, next?.pins ?? []);
  if (keyset.tlsPins.length === 0 || keyset.tlsPins.some((pin) => own.includes(pin))) return current;
  throw new AegisError("conflict", "hosts meet a certificate of yours, not one that this controller made", {
    hint: "replace the files of --tls-cert and --tls-key: the running controller publishes the new key, then uses it",
  });
}
