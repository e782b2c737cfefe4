/** Every command there is, with its one line for help. Nothing below a name is loaded before that name is typed. */
import { group, leaf } from "./command.ts";

type ServiceVerb = "install" | "reinstall" | "uninstall" | "status" | "restart" | "logs";

const serviceCommand = (verb: ServiceVerb) => async () => {
  if (verb === "install" || verb === "reinstall")
    return { default: (await import("./edge/service-install.ts")).commands[verb] };
  return { default: (await import("./edge/service-control.ts")).commands[verb] };
};

const controllerService = (verb: "install" | "uninstall" | "status") => async () => ({
  default: (await import("./controller/service.ts")).commands[verb],
});

const edgeRun = () => import("./edge/run.ts");

export const tree = group("aegis runs commands on machines you own, under a policy their owners keep.", {
  dev: leaf("a controller and one enrolled edge on this machine, to try things", () => import("./dev.ts")),
  controller: group("The server side: enrolls hosts, routes calls, serves the REST API.", {
    init: leaf("make keys, database and the first operator's profile", () => import("./controller/init.ts")),
    start: leaf("serve hosts and operators", () => import("./controller/start.ts")),
    token: group("Bearer tokens of operators and services.", {
      create: leaf("make a token; it is shown once", () => import("./controller/token-create.ts")),
      ls: leaf("list tokens", () => import("./controller/token-ls.ts")),
      revoke: leaf("end a token", () => import("./controller/token-revoke.ts")),
    }),
    service: group("The controller as a service of this system.", {
      install: leaf("let systemd keep it running", controllerService("install")),
      uninstall: leaf("stop it and remove the unit", controllerService("uninstall")),
      status: leaf("whether systemd keeps it running", controllerService("status")),
    }),
    tenant: group("Who owns hosts, and is kept from all others.", {
      ls: leaf("list tenants", () => import("./controller/tenant-ls.ts")),
      rm: leaf("remove a tenant with all it has", () => import("./controller/tenant-rm.ts")),
    }),
    keys: group("The keys by which hosts know this controller.", {
      ls: leaf("list keys, and the hosts that do not know them yet", () => import("./controller/keys-ls.ts")),
      rotate: leaf("make a new key and let hosts follow", () => import("./controller/keys-rotate.ts")),
      revoke: leaf("deny a key at once", () => import("./controller/keys-revoke.ts")),
    }),
    ca: leaf("print the certificate that clients must trust", () => import("./controller/ca.ts")),
    backup: leaf("put all of it into one private file", () => import("./controller/backup.ts")),
    restore: leaf("make it again from a backup", () => import("./controller/restore.ts")),
    audit: group("The record of what happened, which proves that it is whole.", {
      export: leaf("write all of it as JSON lines", () => import("./controller/audit-export.ts")),
      verify: leaf("check a record, row by row", () => import("./controller/audit-verify.ts")),
    }),
  }),
  edge: group("The host side, and what operators do with hosts.", {
    enroll: leaf("make this machine a host of a controller", () => import("./edge/enroll.ts")),
    run: leaf("run the edge daemon", edgeRun),
    pause: leaf("refuse every call until resume", () => import("./edge/pause.ts")),
    resume: leaf("take calls again", () => import("./edge/resume.ts")),
    policy: group("What this host allows.", {
      test: leaf("what this host would say to a call", () => import("./edge/policy-test.ts")),
    }),
    secret: group("Values that this host's owner keeps for tools.", {
      set: leaf("keep a value", () => import("./edge/secret-set.ts")),
      ls: leaf("list the names", () => import("./edge/secret-ls.ts")),
      rm: leaf("forget a value", () => import("./edge/secret-rm.ts")),
    }),
    service: group("The daemon as a service of this system.", {
      install: leaf("install it, or change what is installed", serviceCommand("install")),
      uninstall: leaf("stop it and remove it", serviceCommand("uninstall")),
      reinstall: leaf("remove it and install it anew", serviceCommand("reinstall")),
      status: leaf("whether the system keeps it running", serviceCommand("status")),
      restart: leaf("restart it, with time for calls that run", serviceCommand("restart")),
      logs: leaf("what it has logged", serviceCommand("logs")),
    }),
    logout: leaf("make this machine a host no more", () => import("./edge/logout.ts")),
    status: leaf("whether this host is connected", () => import("./edge/status.ts")),
    log: leaf("every call that reached this host, as the host recorded it", () => import("./edge/log.ts")),
    token: group("Tokens that let a machine in, and the one by which this host goes on.", {
      issue: leaf("ask the controller for an enrollment token", () => import("./edge/token.ts")),
      refresh: leaf("renew this host's own token", () => import("./edge/token-refresh.ts")),
    }),
    ls: leaf("list hosts", () => import("./edge/ls.ts")),
    tag: group("Words by which operators select hosts.", {
      add: leaf("add tags to a host", async () => (await import("./edge/tag.ts")).add),
      rm: leaf("take tags from a host", async () => (await import("./edge/tag.ts")).rm),
    }),
    group: group("Names for hosts that are alike.", {
      ls: leaf("list groups and whom they mean now", () => import("./edge/group-ls.ts")),
      create: leaf("make a group", () => import("./edge/group-create.ts")),
      "set-pinned": leaf(
        "name hosts that belong to a group whatever they are",
        () => import("./edge/group-set-pinned.ts"),
      ),
      rm: leaf("forget a group", () => import("./edge/group-rm.ts")),
    }),
    keys: group("The keys by which hosts prove who they are.", {
      rotate: leaf("give this host a new key", () => import("./edge/keys-rotate.ts")),
      "revoke-remote": leaf("deny a host for good", () => import("./edge/revoke-remote.ts")),
    }),
    exec: leaf("run a command on a host", () => import("./edge/exec.ts")),
    cp: leaf("copy a file to a host or from it", () => import("./edge/cp.ts")),
    fleet: group("One tool call on many hosts.", {
      preview: leaf("which hosts a target means now", () => import("./edge/fleet-preview.ts")),
      run: leaf("call a tool on every host of a target", () => import("./edge/fleet-run.ts")),
      cancel: leaf("cancel a run that is going on", () => import("./edge/fleet-cancel.ts")),
      runs: leaf("list what was run", () => import("./edge/fleet-runs.ts")),
      show: leaf("one run, and how each host fared", () => import("./edge/fleet-show.ts")),
      keys: group("The keys of many hosts.", {
        rotate: leaf("give each host a new key", () => import("./edge/fleet-keys-rotate.ts")),
      }),
      update: leaf("update aegis on one host after the other", () => import("./edge/fleet-update.ts")),
    }),
  }),
  operator: group("What an operator has, wherever the controller is.", {
    key: group("The key by which hosts know an operator.", {
      create: leaf("make a key to sign calls with", () => import("./operator/key-create.ts")),
      show: leaf("the public half of the key", () => import("./operator/key-show.ts")),
    }),
  }),
  mcp: leaf("an MCP server on stdin and stdout, for desktop clients", () => import("./mcp.ts")),
  daemon: leaf("the same as edge run", edgeRun),
  login: leaf("remember a controller and the token for it", () => import("./login.ts")),
  logout: leaf("forget the current controller and its token", () => import("./logout.ts")),
  whoami: leaf("who the controller takes this operator for", () => import("./whoami.ts")),
  doctor: leaf("look for what is wrong here, and what to do", () => import("./doctor.ts")),
  completion: leaf("a script that lets a shell finish aegis commands", () => import("./completion.ts")),
  update: leaf("replace this executable by a newer release", () => import("./update.ts")),
  install: group("What an installer leaves to this executable.", {
    path: leaf("make its folder part of your PATH", () => import("./install-path.ts")),
  }),
});
