/** One small command on one host, from request to last event: beside ssh and beside the bare spawn. */
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { type Bench, shown, spread, timed } from "./bench.ts";
import { bareGrpc, diskWrites, launcherOf } from "./floors.ts";
import { benchSite } from "./site.ts";
import { sshd } from "./sshd.ts";

const dispatch: Bench = async ({ quick }) => {
  const rounds = quick ? 5 : 500;
  const atOnce = quick ? 4 : 64;
  const few = quick ? 3 : 60;
  const site = await benchSite();
  const ssh = await sshd();
  const bare = await bareGrpc(site);
  const rows: string[][] = [];
  try {
    const jit = await site.openHost("jit");
    const wx = await site.openHost("wx", { wx: true });
    const spawnOf = (command: string[]) => () => Bun.spawnSync(command, { stdout: "ignore", stderr: "ignore" });
    const base = spread(await timed(few, spawnOf([...ssh.master(), "true"])));
    const add = (name: string, times: number[], calls = times.length) => {
      const one = spread(times);
      rows.push([name, String(calls), shown(one), one.p95.toFixed(1), (one.median / base.median).toFixed(2)]);
    };
    rows.push(["ssh, open ControlMaster", String(few), shown(base), base.p95.toFixed(1), "1.00"]);
    add("ssh, new connection", await timed(few, spawnOf([...ssh.fresh(), "true"])));
    add("bare spawn of /bin/true", await timed(few, spawnOf(["/bin/true"])));
    const launcher = launcherOf(jit);
    if (launcher)
      add("the same through the launcher", await timed(few, spawnOf([launcher, "--no-landlock", "--", "/bin/true"])));
    add("bare gRPC over TLS, there and back", await bare.roundTrips(rounds));
    add("4 KiB brought to disk", await diskWrites(site, few));
    for (const { name } of [jit, wx]) {
      const call = () => site.call({ Node: name }, { command: "/bin/true" });
      add(`REST, one after another, ${name}`, await timed(rounds, call));
      const started = performance.now();
      const together: number[] = [];
      await Promise.all(
        Array.from({ length: atOnce }, async () => {
          for (let index = 0; index < Math.ceil((rounds * 4) / atOnce); index++) {
            const at = performance.now();
            await call();
            together.push(performance.now() - at);
          }
        }),
      );
      const perSecond = together.length / ((performance.now() - started) / 1000);
      add(`REST, ${atOnce} at once, ${name} (${perSecond.toFixed(0)}/s)`, together);
    }
    const mcp = new Client({ name: "bench", version: "1" });
    const headers = { authorization: `Bearer ${site.desk.env.AEGIS_USER_TOKEN}` };
    const transport = new StreamableHTTPClientTransport(new URL(`${site.httpUrl}/mcp`), { requestInit: { headers } });
    await mcp.connect(transport as Parameters<Client["connect"]>[0]);
    for (const { name } of [jit, wx]) {
      const call = async () => {
        const args = { target: name, context: "operator", command: "/bin/true" };
        const { isError, content } = await mcp.callTool({ name: "cmd_run", arguments: args });
        if (isError) throw new Error(`tools/call failed: ${JSON.stringify(content)}`);
      };
      add(`MCP tools/call, one after another, ${name}`, await timed(rounds, call));
    }
    await mcp.close();
    add(
      "aegis edge exec, jit",
      await timed(few, () => site.desk.run("edge", "exec", "jit", "--context", "operator", "--", "/bin/true")),
    );
    return [
      {
        title: "One small command",
        columns: ["way", "calls", "ms: median (min-max)", "p95", "x ssh ControlMaster"],
        rows,
        notes: [
          "each call is verified, judged, run in a confined child, signed and recorded; ssh does none of the last three",
          "wx: the daemon under PR_SET_MDWE, as MemoryDenyWriteExecute makes it; controller, hosts, client and sshd share the machine",
          "a call cannot take less than the spawn through the launcher, a gRPC round trip and one disk write together",
          "an ssh or exec row contains the start of the client program; a REST row does not",
        ],
      },
    ];
  } finally {
    bare.stop();
    await ssh.stop();
    await site.close();
  }
};

export default dispatch;
