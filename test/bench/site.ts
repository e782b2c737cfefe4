/** One controller and hosts for a bench, and a REST client that does what any other would. */
import { readFileSync } from "node:fs";
import { type Host, type Installation, type InstallationOptions, installation } from "../support/installation.ts";

export interface BenchSite extends Installation {
  /** One call on `target`, in the context `operator`; resolves after the last of its events, and only when it succeeded. */
  call(target: { Node: string }, args: Record<string, unknown>): Promise<void>;
  /** The same of any tool on any hosts, however it ends; its last event. */
  run(request: RunRequest): Promise<RunEnd>;
  /** A host that runs anything, in the context `operator`. `wx`: as under MemoryDenyWriteExecute. */
  openHost(name: string, options?: { wx?: boolean }): Promise<Host>;
}

export interface RunRequest {
  target: unknown;
  tool: string;
  args: Record<string, unknown>;
  /** Hosts at a time; 64 unless stated. */
  atOnce?: number;
  /** 600 unless stated. */
  deadlineSecs?: number;
}

export interface RunEnd {
  outcome: string;
  summary: Record<string, number>;
}

/** PR_SET_MDWE before the daemon starts: what the service's W^X does to it. */
export const underWx = [
  "python3",
  "-c",
  "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; os.execv(sys.argv[1], sys.argv[1:])",
];

export async function benchSite(options: InstallationOptions = {}): Promise<BenchSite> {
  const site = await installation(options);

  async function run({ target, tool, args, atOnce, deadlineSecs = 600 }: RunRequest): Promise<RunEnd> {
    const policy = { deadline_secs: deadlineSecs, ...(atOnce === undefined ? {} : { max_concurrency: atOnce }) };
    const response = await fetch(`${site.httpUrl}/v1/edge/fleet/invoke`, {
      method: "POST",
      headers: { authorization: `Bearer ${site.desk.env.AEGIS_USER_TOKEN}`, "content-type": "application/json" },
      body: JSON.stringify({ target, tool, args, context: "operator", policy }),
    });
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    let tail = "";
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? [])
      tail = (tail + decoder.decode(chunk, { stream: true })).slice(-1_000);
    const last = /event: ?fleet_result\ndata: ?(.*)\n/.exec(tail)?.[1];
    if (!last) throw new Error(`the run has no end: ${tail}`);
    return JSON.parse(last) as RunEnd;
  }

  async function call(target: { Node: string }, args: Record<string, unknown>): Promise<void> {
    const { outcome, summary } = await run({ target, tool: "cmd.run", args });
    if (outcome !== "complete" || summary.ok !== 1)
      throw new Error(`the call did not succeed: ${outcome} ${JSON.stringify(summary)}`);
  }

  async function openHost(name: string, { wx = false }: { wx?: boolean } = {}): Promise<Host> {
    const host = await site.addHost(name, { enroll: ["--full-access"], ...(wx ? { before: underWx } : {}) });
    // A daemon is connected a moment before its controller knows.
    for (let attempt = 1; ; attempt++) {
      const failure = await call({ Node: name }, { command: "/bin/true" }).then(
        () => null,
        (error: unknown) => error,
      );
      if (failure === null) return host;
      if (attempt === 50) throw failure;
      await Bun.sleep(20);
    }
  }

  return Object.assign(site, { run, call, openHost });
}

export interface Memory {
  rssMb: number;
  pssMb: number;
  anonMb: number;
}

export function memoryOf(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const mb = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? Number.NaN) / 1024;
  return { rssMb: mb("Rss"), pssMb: mb("Pss"), anonMb: mb("Anonymous") };
}

/** Seconds of processor time used so far. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
