/** One controller, one host and a record of what really ran there, against which every claim is compared. */
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type ApiClient, createApiClient } from "../../src/api/client.ts";
import type { CommandResult } from "../../src/api/events.ts";
import { databasePath } from "../../src/controller/database.ts";
import { AegisError } from "../../src/errors.ts";
import { Secret } from "../../src/platform/log.ts";
import { openStore } from "../../src/store/open.ts";
import type { CommandRow } from "../../src/store/store.ts";
import { eventually } from "../support/aegis.ts";
import {
  type Host,
  type HostOptions,
  type Installation,
  type InstallationOptions,
  installation,
} from "../support/installation.ts";
import { type MemoryWatch, watchMemory } from "../support/memory.ts";

/** A call that leaves a mark on its host when it begins to run, and only then. */
export interface MarkedCall {
  id: string;
  result: Promise<CommandResult | { error: string }>;
}

export interface Ledger {
  calls: number;
  ok: number;
  /** Ran, and their result never arrived. */
  lost: number;
  /** Whoever asked was told otherwise first, and the result is stored all the same. */
  late: number;
  /** Ran more than once. */
  duplicated: number;
  /** Reported ok, and did not run: what was reported. */
  falseOk: unknown[];
}

export interface FaultStage {
  site: Installation;
  host: Host;
  api: ApiClient;
  /** Begins a call of this shell script, after its mark. */
  call(script?: string, deadlineSecs?: number): MarkedCall;
  /** Calls one after the other, so many at once, until it is told to stop. */
  load(atOnce?: number): () => Promise<void>;
  /** Resolves once a call succeeds again; answers how long that took. */
  recovered(withinMs?: number): Promise<number>;
  /** Resolves once either end has said that the session is over; answers how long that took. */
  noticed(withinMs?: number): Promise<number>;
  /** From now on `noticed` counts what is said. */
  arm(): void;
  /** How often a call has run. */
  marks(id: string): number;
  /** What became of every call, compared with what ran. Waits for results that are still on their way. */
  ledger(): Promise<Ledger>;
  /** Looks at the memory of both from now on, until the stage is over. */
  memory: MemoryWatch<"daemon" | "controller">;
}

export interface StageOptions {
  site?: InstallationOptions;
  host?: HostOptions;
  /** Before anything is removed. */
  cleanUp?: () => void;
}

/** Longest any call of a stage may take to be answered, whatever happens. */
const patienceMs = 150_000;

export async function onStage<T>(options: StageOptions, act: (stage: FaultStage) => Promise<T>): Promise<T> {
  const site = await installation(options.site ?? {});
  let stage: FaultStage | null = null;
  try {
    const host = await site.addHost("victim", { enroll: ["--full-access"], ...options.host });
    stage = stageOf(site, host);
    return await act(stage);
  } finally {
    stage?.memory.stop();
    // What a fault has stopped cannot obey.
    site.controller.signal("SIGCONT");
    options.cleanUp?.();
    await site.close();
  }
}

function stageOf(site: Installation, host: Host): FaultStage {
  const token = new Secret(site.desk.env.AEGIS_USER_TOKEN ?? "");
  const api = createApiClient({ url: site.httpUrl, token, caPem: null });
  const record = join(host.home, "marks");
  appendFileSync(record, "");
  const calls: MarkedCall[] = [];
  const told = new Map<string, CommandResult | { error: string }>();
  let armedAt = performance.now();
  let heard = { daemon: 0, controller: 0 };

  const memory = watchMemory(() => ({ daemon: host.daemon?.pid ?? 0, controller: site.controller.pid }));

  const gone = () => ({
    daemon: count(host.daemon?.stderr() ?? "", /"event":"(?:disconnected|stopped)"/g),
    controller: count(site.controller.stderr(), /"event":"node_disconnected"/g),
  });

  async function ask(id: string, script: string, deadlineSecs: number): Promise<CommandResult | { error: string }> {
    const stop = AbortSignal.timeout(patienceMs);
    try {
      // Without its mark it must not end well, whatever kept the mark from being made.
      const args = { command: "/bin/sh", args: ["-c", `echo ${id} >> ${record} || exit 90; ${script}`] };
      const policy = { deadline_secs: deadlineSecs };
      for await (const { event, data } of api.invoke(
        { target: { Node: "victim" }, tool: "cmd.run", context: "operator", args, policy },
        { signal: stop },
      ))
        if (event === "command_result") return data;
      return { error: "not asked" };
    } catch (thrown) {
      return { error: AegisError.from(thrown).message };
    }
  }

  const self: FaultStage = {
    ...{ site, host, api },
    call(script = "true", deadlineSecs = 60) {
      const id = crypto.randomUUID();
      const made: MarkedCall = { id, result: ask(id, script, deadlineSecs) };
      void made.result.then((result) => told.set(id, result));
      calls.push(made);
      return made;
    },
    load(atOnce = 2) {
      let going = true;
      const one = async () => {
        while (going) {
          await self.call().result;
          await Bun.sleep(20);
        }
      };
      const all = Array.from({ length: atOnce }, one);
      return async () => {
        going = false;
        await Promise.all(all);
      };
    },
    async recovered(withinMs = 120_000) {
      const begun = performance.now();
      for (;;) {
        const result = await self.call().result;
        if ("ok" in result && result.ok) return performance.now() - begun;
        if (performance.now() - begun > withinMs)
          throw new Error(`no call succeeded within ${withinMs} ms; the last said ${JSON.stringify(result)}`);
        await Bun.sleep(100);
      }
    },
    arm() {
      heard = gone();
      armedAt = performance.now();
    },
    async noticed(withinMs = 60_000) {
      await eventually(
        "either end noticed",
        () => {
          const now = gone();
          return now.daemon > heard.daemon || now.controller > heard.controller;
        },
        withinMs,
      );
      return performance.now() - armedAt;
    },
    marks: (id) => count(existsSync(record) ? readFileSync(record, "utf8") : "", new RegExp(`^${id}$`, "gm")),
    async ledger() {
      await Promise.all(calls.map(({ result }) => result));
      const ran = new Map<string, number>();
      for (const id of readFileSync(record, "utf8").split("\n")) if (id) ran.set(id, (ran.get(id) ?? 0) + 1);
      const store = await openStore(databasePath(join(site.server.home, ".aegis/controller")));
      try {
        const [node] = await store.nodes("default");
        if (!node) throw new Error("no host");
        const stored = async () => byMark(await store.recentCommands(node.nodeId, 100_000));
        const open = (rows: Map<string, CommandRow>) =>
          calls.filter(({ id }) => ran.has(id) && rows.get(id)?.result === null).length;
        let rows = await stored();
        // Results wait on the host until they are stored; the last of them may be on their way.
        for (let turn = 0; turn < 50 && open(rows) > 0; turn++) {
          await Bun.sleep(100);
          rows = await stored();
        }
        const ledger: Ledger = { calls: calls.length, ok: 0, lost: 0, late: 0, duplicated: 0, falseOk: [] };
        for (const { id } of calls) {
          const times = ran.get(id) ?? 0;
          const row = rows.get(id);
          const answer = told.get(id);
          const saidOk = answer !== undefined && "ok" in answer && answer.ok;
          const isStored = row?.result !== null && row?.result !== undefined;
          if (saidOk) ledger.ok++;
          if (times > 1) ledger.duplicated++;
          if (times === 0 && (saidOk || row?.outcome === "ok"))
            ledger.falseOk.push({ told: answer, stored: row?.outcome });
          if (times > 0 && !isStored) ledger.lost++;
          if (times > 0 && isStored && !saidOk && row?.outcome === "ok") ledger.late++;
        }
        return ledger;
      } finally {
        await store.close();
      }
    },
    memory,
  };
  return self;
}

const count = (text: string, pattern: RegExp): number => text.match(pattern)?.length ?? 0;

/** Commands by the mark in their arguments. */
function byMark(rows: readonly CommandRow[]): Map<string, CommandRow> {
  const found = new Map<string, CommandRow>();
  for (const row of rows) {
    const [, id] = /echo ([0-9a-f-]{36}) >>/.exec(Buffer.from(row.commandBody).toString("latin1")) ?? [];
    if (id) found.set(id, row);
  }
  return found;
}
