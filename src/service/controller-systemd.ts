/** Installs, removes and watches the controller's unit: one file, and a start that is proved. */
import { lstat, readFile, rm } from "node:fs/promises";
import { AegisError } from "../errors.ts";
import { PUBLIC_FILE, writeFileAtomic } from "../platform/private-file.ts";
import type { RunProgram } from "../platform/run-program.ts";
import {
  type ControllerService,
  controllerUnit,
  controllerUnitName,
  controllerUnitPath,
  isOurControllerUnit,
} from "./controller-unit.ts";
import type { ServiceStatus } from "./spec.ts";
import { answers, readStatus, statusProperties } from "./systemd.ts";

/** Above the unit's own time to start. */
const patienceMs = 70_000;
const logLines = 20;

const systemctl = (run: RunProgram, ...words: string[]) => run("systemctl", words, { timeoutMs: patienceMs });

/** Refuses where systemd does not answer. */
async function requireSystemd(run: RunProgram): Promise<void> {
  const state = await systemctl(run, "is-system-running");
  if (answers(state)) return;
  throw new AegisError(
    "unprocessable",
    `systemd does not answer: ${(state.stderr || state.stdout).trim() || "no output"}`,
    {
      hint: "let your own supervisor keep this running: aegis controller start",
    },
  );
}

async function must(run: RunProgram, ...words: string[]): Promise<void> {
  const end = await systemctl(run, ...words);
  if (end.status === 0) return;
  const said = (end.stderr || end.stdout).trim() || `ended with ${end.status}`;
  const log = await run("journalctl", ["-u", controllerUnitName, "-n", String(logLines), "-o", "cat", "--no-pager"], {
    timeoutMs: 10_000,
  });
  const last = log.stdout.trim() === "" ? "" : `\nits last words:\n${log.stdout.trim()}`;
  throw new AegisError("internal", `systemctl ${words.join(" ")}: ${said}${last}`, {
    hint: `journalctl -u ${controllerUnitName}`,
  });
}

/** The unit that lies there; null when none does. Throws on a link, such as one that masks it. */
async function unitText(): Promise<string | null> {
  const found = await lstat(controllerUnitPath).catch(() => null);
  if (!found) return null;
  if (found.isFile()) return await readFile(controllerUnitPath, "utf8");
  throw new AegisError("bootstrap_conflict", `${controllerUnitPath} is no regular file`, {
    hint: `look what it is, remove it, and try again: ls -l ${controllerUnitPath}`,
  });
}

/** Twice is the same as once. Answers whether the unit was written, and how it then is: ready, or this throws. */
export async function installController(
  service: ControllerService,
  run: RunProgram,
): Promise<{ written: boolean; status: ServiceStatus }> {
  await requireSystemd(run);
  const wanted = controllerUnit(service);
  const before = await unitText();
  if (before !== null && !isOurControllerUnit(before))
    throw new AegisError(
      "bootstrap_conflict",
      `${controllerUnitPath} is there already and was written by somebody else`,
      {
        hint: `move it away: mv ${controllerUnitPath} ${controllerUnitPath}.old`,
      },
    );
  const written = before !== wanted;
  if (written) await writeFileAtomic(controllerUnitPath, wanted, PUBLIC_FILE);
  if (written || (await controllerStatus(run)).state !== "running") {
    await must(run, "daemon-reload");
    await systemctl(run, "reset-failed", controllerUnitName);
    await must(run, "enable", controllerUnitName);
    await must(run, "restart", controllerUnitName);
  }
  return { written, status: await controllerStatus(run) };
}

/** False when no unit of ours was there. Data stays. */
export async function uninstallController(run: RunProgram): Promise<boolean> {
  const before = await unitText();
  if (before === null) return false;
  if (!isOurControllerUnit(before))
    throw new AegisError("bootstrap_conflict", `${controllerUnitPath} stays: somebody else wrote it`);
  await systemctl(run, "disable", "--now", controllerUnitName);
  await systemctl(run, "reset-failed", controllerUnitName);
  await rm(controllerUnitPath, { force: true });
  await must(run, "daemon-reload");
  return true;
}

export async function controllerStatus(run: RunProgram): Promise<ServiceStatus> {
  const end = await systemctl(run, "show", controllerUnitName, `--property=${statusProperties.join(",")}`);
  return readStatus(end.stdout);
}
