/** Brings an executable to another release: look, fetch, verify, swap, and undo when the new one does not serve. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import { fetchArchive, offered, type ReleaseSource } from "./source.ts";
import type { Artefact } from "./sums.ts";
import { executableIn, packageManagerOf, placeExecutable, rollBack } from "./swap.ts";

export interface UpdateOptions {
  executable: string;
  /** The version that runs now, and its target. */
  current: string;
  target: string;
  publicPem: string;
  source: ReleaseSource;
  /** Asked for by name: then an older version is taken too. */
  pinned: boolean;
  onBytes?: (have: number, total: number | null) => void;
}

export type Newer = { kind: "current"; version: string } | { kind: "newer"; artefact: Artefact };

/** Compares as Semantic Versioning does; negative when `left` is older. */
export const compareVersions = (left: string, right: string): number => Bun.semver.order(left, right);

/** What the source offers, compared with what runs. Throws `conflict` for an older one that nobody asked for by name. */
export async function look({ current, target, publicPem, source, pinned }: UpdateOptions): Promise<Newer> {
  if (publicPem === "")
    throw new AegisError("unprocessable", "this aegis was built without a release key, so it can verify no update", {
      hint: "install a release: curl -fsSL https://get.100monkeys.ai | bash",
    });
  const artefact = await offered(source, target, publicPem);
  const order = compareVersions(artefact.version, current);
  if (order === 0) return { kind: "current", version: current };
  if (order < 0 && !pinned)
    throw new AegisError(
      "conflict",
      `${source.where} offers ${artefact.version}, which is older than this ${current}`,
      {
        hint: `nothing was changed; if you want it: aegis update --version ${artefact.version}`,
      },
    );
  return { kind: "newer", artefact };
}

/** Fetches, verifies and swaps. Nothing is replaced before everything was verified. */
export async function take(options: UpdateOptions, artefact: Artefact): Promise<void> {
  const { executable, source, onBytes } = options;
  if ((await packageManagerOf(executable)) === "homebrew")
    throw new AegisError("conflict", `${executable} belongs to Homebrew, which would undo an update of ours`, {
      hint: "brew upgrade aegis-cli",
    });
  const scratch = await mkdtemp(join(tmpdir(), "aegis-update-"));
  try {
    const archive = await fetchArchive(source, artefact, scratch, onBytes);
    await placeExecutable(executable, await executableIn(archive));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Puts the executable before the last update back. */
export async function undo(executable: string): Promise<void> {
  if (await rollBack(executable)) return;
  throw new AegisError("not_found", `there is no earlier executable beside ${executable}`, {
    hint: "aegis update --version VERSION installs any release",
  });
}
