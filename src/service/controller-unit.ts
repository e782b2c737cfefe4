/** The unit that keeps a controller running: as the owner of its data, and with sight of nothing else. */
import { pathWord, word } from "./systemd-unit.ts";

export const controllerUnitName = "aegis-controller.service";
export const controllerUnitPath = `/etc/systemd/system/${controllerUnitName}`;

const marker = "Written by: aegis controller service install";

/** False for a unit of somebody else's making. */
export const isOurControllerUnit = (text: string): boolean => text.includes(marker);

export interface ControllerService {
  /** Absolute, and the same over updates. */
  executable: string;
  /** Absolute real path. */
  dataDir: string;
  /** Login name of whoever owns the data: commands typed beside the controller then leave nothing that it cannot read. */
  user: string;
  notify: "main" | "all";
}

/** Where the service sees its data: what lies above them may be closed to whoever owns them, as root's home is. */
const seenAt = "/run/aegis-controller";

/** Exit statuses after which starting again cannot help: wrong flags, no controller, no namespaces, a folder that is missing. */
const hopeless = "2 78 217 226";

export function controllerUnit({ executable, dataDir, user, notify }: ControllerService): string {
  const command = [executable, "controller", "start", "--data-dir", seenAt].map(word).join(" ");
  const hidden = /^\/(?:home|root|run\/user)\//.test(executable);
  return `# ${marker}
# It may be written again; your own changes belong into: systemctl edit aegis-controller
[Unit]
Description=AEGIS Controller
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=20

[Service]
Type=notify
NotifyAccess=${notify}
ExecStart=${command}
User=${user}
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=${hopeless}
TimeoutStartSec=60
TimeoutStopSec=30
WatchdogSec=30
KillMode=mixed

# Hardening: it reads and writes its data, listens, and does nothing else.
PrivateUsers=true
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=tmpfs
BindPaths=${pathWord(dataDir)}:${seenAt}
${hidden ? `BindReadOnlyPaths=${pathWord(executable)}\n` : ""}InaccessiblePaths=-/etc/shadow -/etc/gshadow -/etc/ssh
PrivateTmp=true
PrivateDevices=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectKernelLogs=true
ProtectControlGroups=true
ProtectClock=true
ProtectHostname=true
ProtectProc=invisible
ProcSubset=pid
RestrictSUIDSGID=true
RestrictRealtime=true
RestrictNamespaces=true
LockPersonality=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
KeyringMode=private
RemoveIPC=true
UMask=0077
LimitNOFILE=65535

[Install]
WantedBy=multi-user.target
`;
}
