/** Asks the service manager about services, and restarts one: service.status, service.restart. */
import { z } from "zod";
import type { Access } from "../policy/access.ts";
import type { Command } from "./command-args.ts";
import { type CommandHost, runCommand } from "./command-process.ts";
import { commandResult } from "./command-result.ts";
import { findExecutable } from "./find-executable.ts";
import { capOutput } from "./output-cap.ts";
import { inputSchema, parseArgs } from "./parse-args.ts";
import { answered, failed } from "./results.ts";
import type { Preparation, Tool, ToolContext, ToolResult } from "./tool.ts";

/** How long the service manager may take, in milliseconds; a service may need most of it to stop. */
const patienceMs = 120_000;
/** Most services in a list. */
const maxListed = 500;
/** What is read of the service manager's answer, in bytes. */
const maxAnswerBytes = 512 * 1024;

const unit = z
  .string()
  .regex(/^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}$/, "the name of a service, such as nginx or nginx.service")
  .describe('The service, such as "nginx" or "nginx.service".');
const user = z.boolean().optional().describe("One of the user's own services instead of the system's. Default false.");

const statusSchema = z.strictObject({
  name: unit.optional().describe('The service, such as "nginx". Without it all services are listed.'),
  state: z
    .enum(["active", "inactive", "failed", "running", "exited", "dead", "activating"])
    .optional()
    .describe("In a list: only services in this state."),
  user,
});
const restartSchema = z.strictObject({ name: unit, user });

export const serviceTools = (host: CommandHost): Tool[] => [serviceStatus(host), serviceRestart(host)];

const serviceStatus = (host: CommandHost): Tool => ({
  descriptor: {
    name: "service.status",
    description: "Tells the state of a service, or lists the services of the host.",
    ...{ readOnly: true, destructive: false, fleetCapable: true, inputSchema: inputSchema(statusSchema) },
  },
  async prepare(value) {
    const parsed = parseArgs(statusSchema, value);
    if (parsed.kind === "invalid_args") return parsed;
    const { name, state, user = false } = parsed.args;
    if (name !== undefined && state !== undefined)
      return { kind: "invalid_args", message: "state is for a list: leave out name" };
    const args =
      name === undefined
        ? [
            "list-units",
            "--type=service",
            "--all",
            "--plain",
            "--no-legend",
            "--full",
            ...(state ? [`--state=${state}`] : []),
          ]
        : ["show", whole(name), `--property=${properties.join(",")}`];
    return ready(host, { args: ["--no-pager", ...args], user, accesses: [] }, (text) =>
      name === undefined ? list(text) : { status: "success", ...stateOf(text) },
    );
  },
});

/** Stated as the command it is, so that a policy can name the services: `subcommand_allowlist: {systemctl: [restart nginx.service]}`. */
const serviceRestart = (host: CommandHost): Tool => ({
  descriptor: {
    name: "service.restart",
    description: "Restarts a service and waits until it is up again, or has failed.",
    ...{ readOnly: false, destructive: true, fleetCapable: true, inputSchema: inputSchema(restartSchema) },
  },
  async prepare(value) {
    const parsed = parseArgs(restartSchema, value);
    if (parsed.kind === "invalid_args") return parsed;
    const { name, user = false } = parsed.args;
    const args = ["restart", whole(name)];
    return ready(host, { args, user, accesses: null }, () => ({
      status: "success",
      unit: whole(name),
      restarted: true,
    }));
  },
});

const whole = (name: string): string =>
  /\.(?:service|socket|timer|target|path|mount)$/.test(name) ? name : `${name}.service`;

interface Asked {
  args: readonly string[];
  user: boolean;
  /** Null: the command itself. */
  accesses: readonly Access[] | null;
}

async function ready(
  host: CommandHost,
  { args: own, user, accesses }: Asked,
  read: (text: string) => Record<string, unknown>,
): Promise<Preparation> {
  const name = "systemctl";
  const found = await findExecutable(name, host.search);
  const args = user ? ["--user", ...own] : own;
  const command = found.kind === "found" ? found.path : null;
  const run = async (context: ToolContext) => {
    if (command === null)
      return failed(
        "tool_not_locally_supported",
        "this host has no systemctl, and other service managers are not asked yet",
      );
    const answer = await ask(host, { executable: command, name, args, user }, context);
    return typeof answer === "string" ? answered(read(answer), context.maxOutputBytes) : answer;
  };
  const touched: Access[] = [{ kind: "command", executable: command ?? `/${name}`, name, args }];
  return { kind: "ready", call: { accesses: accesses ?? touched, run } };
}

interface Systemctl {
  executable: string;
  name: string;
  args: readonly string[];
  user: boolean;
}

/** What it printed, or how it failed. */
async function ask(
  host: CommandHost,
  { user, ...what }: Systemctl,
  { signal }: ToolContext,
): Promise<string | ToolResult> {
  const runtime = `/run/user/${process.getuid?.() ?? 0}`;
  const command: Command = {
    ...what,
    cwd: null,
    // Times in one zone and words in one language, whatever this host's are.
    env: { TZ: "UTC", LC_ALL: "C", ...(user && { XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? runtime }) },
    ...{ stdin: null, timeoutMs: null, idleTimeoutMs: null, maxOutputBytes: null, waitMs: null },
    ...{ accesses: [], obstacle: null },
  };
  const caps = { stdout: capOutput(maxAnswerBytes * 2), stderr: capOutput(16 * 1024) };
  const over = new AbortController();
  const late = new AbortController();
  void host.clock.sleep(patienceMs, over.signal).then(() => {
    if (!over.signal.aborted) late.abort({ kind: "timeout", afterMs: patienceMs });
  });
  const ended = await runCommand(host, {
    ...{ command, secretEnv: {}, stop: AbortSignal.any([signal, late.signal]) },
    output: async (pipe, bytes) => caps[pipe].add(bytes),
  }).finally(() => over.abort());
  const [stdout, stderr] = [caps.stdout.captured(), caps.stderr.captured()];
  const result = commandResult({ name: what.name, ...ended, stdout, stderr });
  if (result.ok) return Buffer.from(stdout.head).toString("utf8");
  if (result.errorKind !== "nonzero_exit") return result;
  const said = Buffer.concat([stderr.head, stderr.tail]).toString("utf8").trim();
  return { ...result, errorMessage: `${said || result.errorMessage}${hint(said, user)}` };
}

function hint(said: string, user: boolean): string {
  // From 256 on systemd names the scope as well.
  if (/Failed to connect to (?:(?:user|system) scope )?bus|not been booted with systemd/.test(said))
    return user
      ? "; the daemon's sandbox hides the user's own services: aegis edge service reinstall --allow-user-bus"
      : "; this host is not run by systemd, or hides it";
  if (/authentication required|Access denied/i.test(said)) return "; the daemon's user may not do that on this host";
  return "";
}

const properties = [
  ...["Id", "Description", "LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID"],
  ...["ActiveEnterTimestamp", "NRestarts", "MemoryCurrent", "Result", "StatusText"],
];

/** `key=value` lines, as `systemctl show` prints them. */
function stateOf(text: string): Record<string, unknown> {
  const shown = new Map(
    text.split("\n").flatMap((line) => {
      const at = line.indexOf("=");
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1)] as const];
    }),
  );
  const value = (key: string) => shown.get(key) || null;
  const number = (key: string) => (/^\d+$/.test(shown.get(key) ?? "") ? Number(shown.get(key)) : null);
  const [, date, time] = /(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC/.exec(shown.get("ActiveEnterTimestamp") ?? "") ?? [];
  return {
    unit: value("Id"),
    description: value("Description"),
    load_state: value("LoadState"),
    active_state: value("ActiveState"),
    sub_state: value("SubState"),
    starts_at_boot: value("UnitFileState"),
    main_pid: number("MainPID") || null,
    active_since: date && time ? `${date}T${time}.000Z` : null,
    restarts: number("NRestarts"),
    memory_bytes: number("MemoryCurrent"),
    result: value("Result"),
    status_text: value("StatusText"),
  };
}

function list(text: string): Record<string, unknown> {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  const services = lines.slice(0, maxListed).map((line) => {
    const [name = "", load = "", active = "", sub = "", ...description] = line.trim().split(/\s+/);
    return { unit: name, load_state: load, active_state: active, sub_state: sub, description: description.join(" ") };
  });
  return { status: "success", services, total: lines.length, truncated: lines.length > services.length };
}
