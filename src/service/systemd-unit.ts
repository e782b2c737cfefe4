/** The text of the systemd unit: every line of it is either needed to start on systemd 252 and later, or closes something. */
import { dirname, join } from "node:path";
import { type AllowedFolder, marker, type ServiceFile, type ServiceSpec, stamped } from "./spec.ts";

export const unitName = "aegis-edge.service";

/** Where the unit lies. */
export const unitPath = ({ runAs, home }: Pick<ServiceSpec, "runAs" | "home">): string =>
  runAs === null ? join(home, ".config/systemd/user", unitName) : join("/etc/systemd/system", unitName);

/** Exit statuses after which starting again cannot help: not enrolled, no user namespaces, a folder that is missing. */
const hopeless = "78 217 226";

/** The unit, then its drop-ins: what somebody asked for stands apart from what everybody gets. */
export function unitFiles(spec: ServiceSpec): ServiceFile[] {
  const path = unitPath(spec);
  const folder = `${path}.d`;
  const dropIns: [name: string, why: string, lines: string[]][] = [];
  const proxies = Object.entries(spec.env).filter(([name]) => name !== "PATH");
  if (proxies.length > 0)
    dropIns.push([
      "10-environment",
      "asked for with --proxy, or found when it was installed",
      proxies.map(([name, value]) => `Environment=${word(`${name}=${value}`)}`),
    ]);
  if (spec.allow.length > 0)
    dropIns.push(["20-allow", "folders that tools may see, asked for with --allow", spec.allow.map(bound)]);
  if (spec.allowUserBus)
    dropIns.push([
      "30-user-bus",
      "tools may talk to the user's service manager, asked for with --allow-user-bus",
      ["BindPaths=-%t/bus", "BindPaths=-%t/systemd/private", "Environment=DBUS_SESSION_BUS_ADDRESS=unix:path=%t/bus"],
    ]);
  if (spec.allowJit)
    dropIns.push([
      "40-jit",
      "programs with a JIT may run, asked for with --allow-jit",
      ["MemoryDenyWriteExecute=false"],
    ]);
  const files = dropIns.map(([name, why, lines]) => ({
    path: join(folder, `${name}.conf`),
    text: `# ${marker}\n# ${why}\n[Service]\n${lines.join("\n")}\n`,
  }));
  return [{ path, text: unit(spec) }, ...files, ...updateFiles(spec)].map(stamped);
}

/** What starts when the daemon asks for an update of itself. */
export const updateUnitName = "aegis-edge-update.path";

/** Outside the sandbox, where an executable can be replaced; it takes only releases of the key built into it. */
function updateFiles({ executable, stateDir, runAs, home, env }: ServiceSpec): ServiceFile[] {
  const folder = dirname(unitPath({ runAs, home }));
  // PathExists takes the rest of its line for one path: nothing is quoted there.
  const path = `# ${marker}
[Unit]
Description=Waits until the AEGIS edge daemon asks for an update

[Path]
PathExists=${join(stateDir, "run/update/request.json").replace(/%/g, "%%")}

[Install]
WantedBy=${runAs === null ? "default.target" : "multi-user.target"}
`;
  const service = `# ${marker}
[Unit]
Description=Updates aegis because its edge daemon asked for it
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=oneshot
TimeoutStartSec=900
${Object.entries({ ...env, AEGIS_UPDATE_FOR: stateDir })
  .map(([name, value]) => `Environment=${word(`${name}=${value}`)}\n`)
  .join("")}ExecStart=${[executable, "update"].map(argument).join(" ")}
NoNewPrivileges=true
PrivateTmp=true
UMask=0022
${runAs === null ? "" : withinItsFolders([dirname(executable), stateDir])}`;
  return [
    { path: join(folder, updateUnitName), text: path },
    { path: join(folder, "aegis-edge-update.service"), text: service },
  ];
}

const bound = ({ path, mode }: AllowedFolder): string =>
  `${mode === "rw" ? "BindPaths" : "BindReadOnlyPaths"}=${pathWord(path)}`;

/** What root writes for the daemon lies in a folder of the daemon's: a link there must lead nowhere else. */
const withinItsFolders = (folders: readonly string[]): string =>
  ["ProtectSystem=strict", ...folders.map((folder) => `ReadWritePaths=${pathWord(folder)}`), ""].join("\n");

function unit(spec: ServiceSpec): string {
  const { executable, configPath, runAs, env } = spec;
  const command = [executable, "edge", "run", "--config", configPath].map(argument).join(" ");
  const edit = runAs === null ? "systemctl --user edit aegis-edge" : "systemctl edit aegis-edge";
  return `# ${marker}
# It may be written again; your own changes belong into: ${edit}
[Unit]
Description=AEGIS Edge Daemon
Documentation=https://docs.100monkeys.ai/deployment/edge-daemon-installation
StartLimitIntervalSec=300
StartLimitBurst=20

[Service]
Type=notify
NotifyAccess=${spec.notify}
ExecStart=${command}
ExecReload=/bin/kill -HUP $MAINPID
${runAs === null ? "" : `User=${runAs}\n`}${env.PATH ? `Environment=${word(`PATH=${env.PATH}`)}\n` : ""}Environment=AEGIS_UPDATE_UNIT=${updateUnitName}
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=${hopeless}
TimeoutStartSec=30
TimeoutStopSec=30
WatchdogSec=30
# Calls that run get their time: only the daemon is asked to stop, and what is left after it is ended.
KillMode=mixed

${spec.allowUnsandboxed ? withoutNamespaces : sandbox(spec)}
# Resource hints
LimitNOFILE=65535

[Install]
WantedBy=${runAs === null ? "default.target" : "multi-user.target"}
`;
}

/** What needs no user namespace. */
const always = `NoNewPrivileges=true
RestrictSUIDSGID=true
RestrictRealtime=true
RestrictNamespaces=true
LockPersonality=true
MemoryDenyWriteExecute=true
SystemCallArchitectures=native
# The last three let the daemon confine its tools (Landlock); systemd before 254 does not know them as ordinary calls.
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
KeyringMode=private
UMask=0077`;

const withoutNamespaces = `# Hardening: what works without user namespaces, asked for with --allow-unsandboxed
${always}
`;

function sandbox({ executable, stateDir, configPath, home, runAs }: ServiceSpec): string {
  const shown = new Set([stateDir]);
  if (!isBelow(dirname(configPath), stateDir)) shown.add(dirname(configPath));
  const own = runAs === null ? userFolders(executable, home, [...shown]) : systemFolders([...shown]);
  return `# Hardening. In a user's manager PrivateUsers is what makes the others possible.
PrivateUsers=true
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
${own}PrivateTmp=true
PrivateDevices=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectKernelLogs=true
ProtectControlGroups=true
ProtectClock=true
ProtectHostname=true
${always}
`;
}

/** The home directory is an empty one in which only what is named here lies. */
function userFolders(executable: string, home: string, shown: readonly string[]): string {
  const hidden = ["/home", "/root", "/run/user"].some((place) => isBelow(executable, place));
  return [
    "# The home directory is empty and read-only but for the daemon's own; --allow PATH shows more of it to tools.",
    "ProtectHome=tmpfs",
    `TemporaryFileSystem=${pathWord(home)}:ro`,
    ...shown.map((path) => `BindPaths=${pathWord(path)}`),
    ...(hidden ? [`BindReadOnlyPaths=${pathWord(executable)}`] : []),
    // Without it the daemon's word that it is ready is lost, because /run/user is hidden too.
    "BindReadOnlyPaths=-%t/systemd/notify",
    "",
  ].join("\n");
}

const systemFolders = (shown: readonly string[]): string =>
  ["ProtectHome=true", ...shown.map((path) => `ReadWritePaths=${pathWord(path)}`), ""].join("\n");

const isBelow = (path: string, folder: string): boolean => path === folder || path.startsWith(`${folder}/`);

/** One word of a command line: `%` and `$` stand for themselves, and quotes keep blanks. */
export const argument = (text: string): string => word(text.replace(/\$/g, "$$$$"));

/** One NAME=VALUE of Environment=, in which `$` means nothing. */
export function word(text: string): string {
  const literal = text.replace(/%/g, "%%");
  return /^[\w@%+=:,./$-]+$/.test(literal) ? literal : `"${literal.replace(/[\\"]/g, "\\$&")}"`;
}

/** A path in a list of paths, where a colon would separate. */
export function pathWord(path: string): string {
  const literal = path.replace(/%/g, "%%").replace(/\\/g, "\\\\").replace(/:/g, "\\:");
  return /[\s"']/.test(literal) ? `"${literal.replace(/"/g, '\\"')}"` : literal;
}
