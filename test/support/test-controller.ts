/** A whole controller on free ports with a directory of its own, an operator who may do anything, and its store at hand. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type ApiClient, createApiClient } from "../../src/api/client.ts";
import type { CommandResult, FleetEvent } from "../../src/api/events.ts";
import type { InvokeRequest } from "../../src/api/types.ts";
import { databasePath } from "../../src/controller/database.ts";
import { initController } from "../../src/controller/init.ts";
import { type RunningController, startController } from "../../src/controller/run.ts";
import { type Clock, systemClock } from "../../src/platform/clock.ts";
import type { Secret } from "../../src/platform/log.ts";
import { openStore } from "../../src/store/open.ts";
import type { Store } from "../../src/store/store.ts";
import { type RecordedLog, recordedLog } from "./recorded-log.ts";

export interface TestControllerOptions {
  requireStrict?: boolean;
  /** Starts this one's data again, once it is closed. */
  again?: TestController;
}

/** What one call to one host came to. */
export interface CallOutcome {
  commandId: string;
  progress: Extract<FleetEvent, { event: "command_progress" }>["data"][];
  result: CommandResult;
}

export interface TestController extends RunningController {
  dataDir: string;
  /** Where hosts connect. */
  grpcUrl: string;
  caPem: string;
  operatorToken: Secret;
  api: ApiClient;
  /** A second look at the database, beside the controller's own. */
  store: Store;
  log: RecordedLog;
  /** Its time, steps and all, runs ahead of the machine's by this much more. */
  skew(ms: number): void;
  /** One call to one host, to its end; an abort cancels the run. */
  call(nodeId: string, request: Partial<InvokeRequest>, signal?: AbortSignal): Promise<CallOutcome>;
  /** Closes it and removes its data. */
  remove(): Promise<void>;
}

export async function testController({
  requireStrict = false,
  again,
}: TestControllerOptions = {}): Promise<TestController> {
  let skewMs = 0;
  const clock: Clock = {
    ...systemClock,
    now: () => systemClock.now() + skewMs,
    monotonic: () => systemClock.monotonic() + skewMs,
  };
  const dataDir = again?.dataDir ?? join(await mkdtemp(join(tmpdir(), "aegis-controller-")), "data");
  const endpoint = { publicEndpoint: "localhost:50056", tenantId: "acme" };
  const operatorToken = again?.operatorToken ?? (await initController({ dataDir, ...endpoint, clock })).operatorToken;
  const log = recordedLog();
  const running = await startController({ dataDir, grpcPort: 0, httpPort: 0, requireStrict, clock, log });
  const store = await openStore(databasePath(dataDir));
  const api = createApiClient({ url: running.httpUrl, token: operatorToken, caPem: running.caPem });
  const close = async () => {
    await running.close();
    await store.close();
  };
  return {
    ...running,
    ...{ dataDir, operatorToken, api, store, log, close },
    grpcUrl: `https://localhost:${running.grpcPort}`,
    caPem: running.caPem ?? "",
    skew(ms) {
      skewMs += ms;
    },
    async call(nodeId, request, signal = new AbortController().signal) {
      const progress: CallOutcome["progress"] = [];
      let result: CommandResult | null = null;
      const invoke: InvokeRequest = { target: { Node: nodeId }, tool: "cmd.run", ...request };
      for await (const event of api.invoke(invoke, { signal: new AbortController().signal })) {
        if (event.event === "started") {
          const cancel = () => void api.cancel(event.data.run_id);
          if (signal.aborted) cancel();
          else signal.addEventListener("abort", cancel, { once: true });
        }
        if (event.event === "command_progress") progress.push(event.data);
        if (event.event === "command_result") result = event.data;
      }
      if (!result) throw new Error(`no result of ${nodeId}`);
      return { commandId: result.command_id, progress, result };
    },
    async remove() {
      await close();
      await rm(dirname(dataDir), { recursive: true });
    },
  };
}
