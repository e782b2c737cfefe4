/** What a host offers, through the executable: files, jobs and MCP servers under its owner's policy. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../src/platform/free-port.ts";
import { eventually, type Machine, playground, processesWith, type Running } from "./support/aegis.ts";

// Every step is a process of its own, on a machine that may be busy.
setDefaultTimeout(60_000);

const place = playground();
const server = place.machine("server");
const host = place.machine("work");
const folder = join(host.home, "project");
let operator: Machine;
let controller: Running;
let daemon: Running;
const controllerArgs: string[] = [];

interface Result {
  ok: boolean;
  exit_code: number;
  error_kind: string | null;
  error_message: string | null;
  stdout: { head: string; tail: string; bytes: number };
  structured: Record<string, unknown> | null;
  job_id: string | null;
}

/** One call, as its caller sees the result. */
async function call(tool: string, args: object, context = "default"): Promise<Result> {
  const words = ["edge", "fleet", "run", "--yes", "--target", "@work", "--context", context, "--tool", tool];
  const { stdout, stderr } = await operator.run(...words, "--args", JSON.stringify(args), "-o", "json");
  const events = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line || "{}"));
  const result = events.find(({ event }) => event === "command_result");
  if (!result) throw new Error(`no result: ${stdout}${stderr}`);
  return result;
}

const startController = async () => {
  controller = server.start("controller", "start", ...controllerArgs);
  return await controller.until(/"http_url":"([^"]+)"/);
};

beforeAll(async () => {
  const [grpcPort, port] = [await freePort(), await freePort()];
  await server.run("controller", "init", "--public-endpoint", `localhost:${grpcPort}`);
  controllerArgs.push("--port", String(port));
  const [, url = ""] = await startController();
  const { profiles } = JSON.parse(readFileSync(join(server.home, ".aegis/credentials"), "utf8"));
  operator = place.machine("desk", { AEGIS_CONTROLLER: url, AEGIS_USER_TOKEN: profiles.default.token });

  mkdirSync(join(folder, "src"), { recursive: true });
  writeFileSync(join(folder, "src/a.ts"), "const a = 1; // TODO\n");
  writeFileSync(join(folder, ".env"), "SECRET=1 TODO\n");
  symlinkSync("/etc", join(folder, "outside"));
  const issued = await operator.run("edge", "token", "issue", "--name", "work", "-o", "json");
  await host.feed(
    JSON.parse(issued.stdout).token,
    "edge",
    "enroll",
    "-",
    "--no-service",
    "--allow",
    folder,
    "--full-access",
  );
  const config = join(host.home, ".aegis/edge/aegis-config.yaml");
  const script = join(import.meta.dir, "support/mcp-server.js");
  const servers = `  mcp_servers:\n    - name: notes\n      command: ${process.execPath}\n      args: [${script}]\n`;
  writeFileSync(config, readFileSync(config, "utf8").trimEnd().concat(`\n${servers}`));
  daemon = host.start("edge", "run");
  await daemon.until(/"event":"connected"/);
});
afterAll(() => place.close());

describe("files", () => {
  test("are read below the folders that the owner chose, and nowhere else", async () => {
    const read = await call("fs.read", { path: join(folder, "src/a.ts") });
    expect(read).toMatchObject({ ok: true, structured: { content: "const a = 1; // TODO\n", eof: true } });
    for (const path of [
      "/etc/passwd",
      join(folder, "outside/passwd"),
      join(folder, ".env"),
      join(host.home, ".aegis/edge/node.key"),
    ])
      expect([path, (await call("fs.read", { path })).error_kind]).toEqual([path, "policy_violation"]);
    expect(await call("fs.write", { path: join(folder, "new"), content: "" })).toMatchObject({
      error_kind: "policy_violation",
    });
  });

  test("that policy keeps are not found by a search either", async () => {
    const { structured } = await call("fs.grep", { path: folder, pattern: "TODO" });
    expect(structured).toMatchObject({ count: 1, skipped: { denied: 1 } });
  });

  test("are written and edited where the owner allows everything, but never the daemon's own", async () => {
    const path = join(folder, "made/here.txt");
    expect(await call("fs.write", { path, content: "one\n" }, "operator")).toMatchObject({ ok: true });
    await call("fs.edit", { path, target_content: "one", replacement_content: "two" }, "operator");
    expect(readFileSync(path, "utf8")).toBe("two\n");
    const own = join(realpathSync(host.home), ".aegis/edge/aegis-config.yaml");
    const before = readFileSync(own, "utf8");
    symlinkSync(own, join(folder, "config"));
    for (const one of [own, join(folder, "config")])
      expect(await call("fs.write", { path: one, content: "" }, "operator")).toMatchObject({
        ok: false,
        error_kind: "policy_violation",
      });
    expect(await call("fs.delete", { path: host.home, recursive: true }, "operator")).toMatchObject({ ok: false });
    expect(readFileSync(own, "utf8")).toBe(before);
  });
});

describe("a job", () => {
  const begin = (mark: string) =>
    call(
      "cmd.run",
      { command: "sh", args: ["-c", `echo begun; sleep ${mark}; echo never`], wait_secs: 0.5 },
      "operator",
    );

  test("outlives its call, its stream and the controller, and is there for its own context only", async () => {
    const mark = `86410.${process.pid}`;
    const begun = await begin(mark);
    expect(begun).toMatchObject({ ok: true, structured: { running: true }, stdout: { head: "begun\n" } });
    expect(begun.job_id).toBe(begun.structured?.job_id as string);
    expect(await controller.stop()).toBe(0);
    await startController();
    await daemon.until(/"event":"disconnected"[\s\S]*"event":"connected"/);
    const { structured } = await call("job.output", { job_id: begun.job_id }, "operator");
    expect(structured).toMatchObject({ content: "begun\n", running: true });
    expect(await call("job.kill", { job_id: begun.job_id })).toMatchObject({ ok: false });
    expect(processesWith(mark).length).toBeGreaterThan(0);
    const killed = await call("job.kill", { job_id: begun.job_id }, "operator");
    expect(killed).toMatchObject({ ok: true, structured: { running: false } });
    expect(processesWith(mark)).toEqual([]);
  });

  test("ends with the daemon, and nothing of it is left", async () => {
    const mark = `86411.${process.pid}`;
    await begin(mark);
    expect(processesWith(mark).length).toBeGreaterThan(0);
    expect(await daemon.stop()).toBe(0);
    await eventually("nothing of it is left", () => processesWith(mark).length === 0);
    daemon = host.start("edge", "run");
    await daemon.until(/"event":"connected"/);
    expect((await call("job.list", {}, "operator")).structured).toMatchObject({ jobs: [] });
  });
});

describe("an MCP server in the owner's settings", () => {
  test("is listed with its tools and answers, where a context allows it", async () => {
    await daemon.until(/"event":"connected"/);
    await eventually("its tools are listed", async () => {
      const [node] = JSON.parse((await operator.run("edge", "ls", "-o", "json")).stdout);
      const url = `${operator.env.AEGIS_CONTROLLER}/v1/edge/hosts/${node.node_id}`;
      const answer = await fetch(url, { headers: { authorization: `Bearer ${operator.env.AEGIS_USER_TOKEN}` } });
      const { tools } = (await answer.json()) as { tools: Array<{ name: string }> };
      return tools.some(({ name }) => name === "mcp.notes.echo") && tools.some(({ name }) => name === "job.wait");
    });
    const said = await call("mcp.notes.echo", { text: "hi" }, "operator");
    expect(said).toMatchObject({ ok: true, structured: { content: [{ type: "text", text: "you said hi" }] } });
    expect(await call("mcp.notes.echo", { text: "hi" })).toMatchObject({ ok: false, error_kind: "policy_violation" });
    expect(await call("mcp.notes.nothing", {}, "operator")).toMatchObject({ ok: false, error_kind: "tool_not_found" });
  });
});

test("host.info is allowed from the first day", async () => {
  expect(await call("host.info", {})).toMatchObject({ ok: true, structured: { os: { type: "linux" } } });
});
