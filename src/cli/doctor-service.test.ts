/** What doctor makes of a service, whatever keeps it. */
import { expect, test } from "bun:test";
import type { ServiceStatus } from "../service/spec.ts";
import { serviceFinding } from "./doctor-service.ts";

const running: ServiceStatus = { state: "running", pid: 7, detail: "", restarts: 0, enabled: true };
const cases: [Partial<ServiceStatus>, state: string, detail: RegExp, remedy: RegExp | null][] = [
  [{}, "ok", /^systemd runs process 7$/, null],
  [{ detail: "connected", restarts: 3 }, "ok", /started again 3 times: connected$/, null],
  [{ enabled: false }, "warning", /does not start it with the system/, /edge service install/],
  [{ state: "starting", pid: null }, "warning", /is starting it/, /service logs/],
  [{ state: "missing", pid: null }, "warning", /none is installed/, /edge service install/],
  [{ state: "stopped", pid: null }, "failed", /it is stopped/, /service restart/],
  [{ state: "failed", detail: "exit-code, status 78" }, "failed", /it failed: exit-code, status 78/, /service logs/],
  [{ state: "masked" }, "failed", /it is masked/, /unmask aegis-edge.service/],
];
for (const [change, state, detail, remedy] of cases)
  test(`${JSON.stringify(change)} is ${state}`, () => {
    const finding = serviceFinding("systemd", { ...running, ...change });
    expect(finding).toMatchObject({ check: "service", state, detail: expect.stringMatching(detail) });
    if (remedy === null) expect(finding.remedy).toBeNull();
    else expect(finding.remedy).toMatch(remedy);
  });
