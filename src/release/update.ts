/** Brings an executable to another release: look, fetch, verify, swap, and undo when the new one does not serve. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AegisError } from "../errors.ts";
import type { Clock } from "../platform/clock.ts";
import { makeDirectory } from "../platform/private-file.ts";
import type { RunProgram } from "../platform/run-program.ts";
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
  /** A folder of this user alone where a download that broke off waits for the next try; null: one for this run only. */
  downloads: string | null;
  clock: Clock;
  /** Runs the new executable before it takes the old one's place. */
  run: RunProgram;
  signal: AbortSignal;
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

/** How long after a download broke off it is taken up again, in ms; after the last it is given up. */
const retryMs: readonly number[] = [500, 2_000, 5_000];

/** How long the new executable may take to say its version, in ms. */
const proofMs = 30_000;

/** Fetches, verifies and swaps. Nothing is replaced before everything was verified and the new executable was seen to run. */
export async function take(options: UpdateOptions, artefact: Artefact): Promise<void> {
  const { executable, downloads } = options;
  if ((await packageManagerOf(executable)) === "homebrew")
    throw new AegisError("conflict", `${executable} belongs to Homebrew, which would undo an update of ours`, {
      hint: "brew upgrade aegis-cli",
    });
  if (downloads !== null) await makeDirectory(downloads);
  const folder = downloads ?? (await mkdtemp(join(tmpdir(), "aegis-update-")));
  try {
    const archive = await patiently(options, artefact, folder);
    const content = await executableIn(archive);
    await rm(archive, { force: true });
    await placeExecutable(executable, content, (path) => proveRuns(path, artefact.version, options.run));
  } finally {
    if (downloads === null) await rm(folder, { recursive: true, force: true });
  }
}

async function patiently({ source, clock, signal, onBytes }: UpdateOptions, artefact: Artefact, folder: string) {
  for (const waitMs of retryMs) {
    try {
      return await fetchArchive(source, artefact, folder, onBytes);
    } catch (error) {
      if (!(error instanceof AegisError) || error.code !== "unavailable" || signal.aborted) throw error;
      await clock.sleep(waitMs, signal);
    }
  }
  return await fetchArchive(source, artefact, folder, onBytes);
}

async function proveRuns(path: string, version: string, run: RunProgram): Promise<void> {
  const { status, stdout, stderr } = await run(path, ["--version"], { timeoutMs: proofMs });
  if (status === 0 && stdout.trim() === `aegis ${version}`) return;
  const said = `${stdout}${stderr}`.trim().split("\n")[0] ?? "";
  throw new AegisError(
    "unprocessable",
    `the executable of aegis ${version} does not run on this machine: ${said || `it ended with ${status}`}`,
    { hint: "nothing was changed" },
  );
}

/** Puts the executable before the last update back. */
export async function undo(executable: string): Promise<void> {
  if (await rollBack(executable)) return;
  throw new AegisError("not_found", `there is no earlier executable beside ${executable}`, {
    hint: "aegis update --version VERSION installs any release",
  });
}
