/** systemd keeps the daemon running: what it is told, in which order, and what it says back. */
import { AegisError } from "../errors.ts";
import type { ProgramEnd, RunProgram } from "../platform/run-program.ts";
import type { ManagerOptions, Owner, ServiceManager, ServiceSpec, ServiceState, ServiceStatus } from "./spec.ts";
import { unitFiles, unitName, updateUnitName } from "./systemd-unit.ts";

const startTimeoutMs = 45_000;

const scope = ({ runAs }: Pick<Owner, "runAs">): string[] => (runAs === null ? ["--user"] : []);

async function systemctl(run: RunProgram, owner: Pick<Owner, "runAs">, ...words: string[]): Promise<ProgramEnd> {
  return await run("systemctl", [...scope(owner), ...words], { timeoutMs: startTimeoutMs });
}

export const systemd: ServiceManager = {
  name: "systemd",
  files: unitFiles,
  print: (spec) =>
    unitFiles(spec)
      .map(({ path, text }) => `# ${path}\n${text}`)
      .join("\n"),
  kept: async () => "same",
  obstacle,
  async activate(spec, { run }) {
    await must(run, spec, "daemon-reload");
    await systemctl(run, spec, "reset-failed", unitName);
    await must(run, spec, "enable", unitName);
    await must(run, spec, "restart", unitName);
    await must(run, spec, "enable", "--now", updateUnitName);
  },
  async deactivate(owner, { run }) {
    await systemctl(run, owner, "disable", "--now", updateUnitName);
    await systemctl(run, owner, "disable", "--now", unitName);
    await systemctl(run, owner, "reset-failed", unitName);
  },
  async reload(owner, { run }) {
    await systemctl(run, owner, "daemon-reload");
  },
  async restart(owner, { run }) {
    await systemctl(run, owner, "reset-failed", unitName);
    await must(run, owner, "restart", unitName);
  },
  async linger({ runAs }, user, { run }) {
    if (runAs !== null) return null;
    const shown = await run("loginctl", ["show-user", user, "--property=Linger", "--value"], { timeoutMs: 10_000 });
    if (shown.stdout.trim() === "yes") return null;
    const enabled = await run("loginctl", ["enable-linger", user], { timeoutMs: 10_000 });
    if (enabled.status === 0) return null;
    return `it stops when you log out, until somebody with the right to runs: sudo loginctl enable-linger ${user}`;
  },
  async status(owner, { run }) {
    const end = await systemctl(run, owner, "show", unitName, `--property=${statusProperties.join(",")}`);
    return readStatus(end.stdout);
  },
  logs: (owner, { lines, follow }) => ({
    command: [
      ...["journalctl", ...scope(owner), "--unit", unitName],
      ...["--lines", String(lines), "--output=cat", "--no-pager", ...(follow ? ["--follow"] : [])],
    ],
  }),
};

/** Whether `systemctl is-system-running` found a manager, whatever that said of itself. */
export const answers = ({ stdout }: ProgramEnd): boolean =>
  /^(?:running|degraded|starting|initializing|maintenance)\s*$/.test(stdout);

/** From 254 on systemd shows a service no folder with such a letter: it loses it on the way to its own executor. */
const unshowable = /["'\u0000-\u001f\u007f]/;

async function obstacle(spec: ServiceSpec, { run, env }: ManagerOptions): Promise<AegisError | null> {
  const shown = [spec.executable, spec.stateDir, spec.configPath, ...spec.allow.map(({ path }) => path)];
  const lost = spec.allowUnsandboxed ? undefined : shown.find((path) => unshowable.test(path));
  if (lost !== undefined)
    return new AegisError("unprocessable", `systemd cannot show ${JSON.stringify(lost)} to a service`, {
      hint: "use a path without quotes and control characters",
    });
  const state = await systemctl(run, spec, "is-system-running");
  if (!answers(state)) {
    const said = (state.stderr || state.stdout).trim();
    const hint =
      spec.runAs === null && !env.XDG_RUNTIME_DIR
        ? "there is no user manager for this login; try: export XDG_RUNTIME_DIR=/run/user/$(id -u), or sign in anew (not with su)"
        : "run it without a service: aegis edge run";
    return new AegisError("unprocessable", `systemd does not answer: ${said || "no output"}`, { hint });
  }
  if (spec.allowUnsandboxed) return null;
  const probe = [...scope(spec), "--wait", "--quiet", "--collect", "-p", "PrivateUsers=true", "true"];
  const namespaces = await run("systemd-run", probe, { timeoutMs: 20_000 });
  if (namespaces.status === 0) return null;
  return new AegisError("unprocessable", "this system gives its users no user namespaces, which the sandbox needs", {
    hint: "allow them (sysctl kernel.unprivileged_userns_clone=1, or on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0), or go on with less: aegis edge service install --allow-unsandboxed",
  });
}

async function must(run: RunProgram, owner: Pick<Owner, "runAs">, ...words: string[]): Promise<void> {
  const end = await systemctl(run, owner, ...words);
  if (end.status === 0) return;
  const said = (end.stderr || end.stdout).trim() || `ended with ${end.status}`;
  throw new AegisError("internal", `systemctl ${[...scope(owner), ...words].join(" ")}: ${said}`, {
    hint: "aegis edge service logs --lines 20",
  });
}

export const statusProperties = [
  "LoadState",
  "ActiveState",
  "SubState",
  "MainPID",
  "NRestarts",
  "StatusText",
  "Result",
  "UnitFileState",
  "ExecMainStatus",
];

const states: Readonly<Record<string, ServiceState>> = {
  active: "running",
  activating: "starting",
  reloading: "reloading",
  deactivating: "stopped",
  inactive: "stopped",
  failed: "failed",
};

export function readStatus(stdout: string): ServiceStatus {
  const values = new Map(
    stdout.split("\n").map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
  );
  const load = values.get("LoadState");
  const active = states[values.get("ActiveState") ?? ""] ?? "stopped";
  const pid = Number(values.get("MainPID") ?? 0);
  const failure =
    active === "failed" || values.get("SubState") === "auto-restart"
      ? `${values.get("Result")}, status ${values.get("ExecMainStatus")}`
      : "";
  return {
    state: load === "masked" ? "masked" : load === "loaded" ? active : "missing",
    pid: pid > 0 ? pid : null,
    detail: values.get("StatusText") || failure,
    restarts: Number(values.get("NRestarts") ?? 0),
    enabled: values.get("UnitFileState") === "enabled",
  };
}
