/** What `doctor` looks at of the system that keeps the daemon running: the service, and whether its sandbox can be had. */
import { AegisError } from "../errors.ts";
import type { InstallOptions } from "../service/manager.ts";
import type { ServiceSpec, ServiceStatus } from "../service/spec.ts";
import { systemHome } from "../service/system-user.ts";
import type { Surroundings } from "./command.ts";
import { examined, type Finding, failed, ok, skipped, warning } from "./doctor-findings.ts";
import { installOptions, plainFlags, serviceSpec } from "./edge/service-spec.ts";

export async function* examineService(stateDir: string, around: Surroundings): AsyncGenerator<Finding> {
  let spec: ServiceSpec;
  let options: InstallOptions;
  try {
    spec = await serviceSpec({ ...plainFlags, system: stateDir.startsWith(`${systemHome}/`) }, [], around);
    options = installOptions(stateDir, "refuse", around);
  } catch (thrown) {
    yield skipped("service", AegisError.from(thrown).message);
    return;
  }
  if (spec.stateDir !== stateDir) {
    yield skipped("service", `a service would be for ${spec.stateDir}, not for this state directory`);
    return;
  }
  const { manager } = options;
  const service = await examined("service", async () => {
    const status = await manager.status(spec, options);
    return { value: status, finding: serviceFinding(manager.name, status) };
  });
  yield service.finding;
  const sandbox = await examined("sandbox", async () => {
    const obstacle = await manager.obstacle(spec, options);
    return {
      value: true,
      finding: obstacle
        ? warning("sandbox", obstacle.message, obstacle.hint ?? "aegis edge service install --allow-unsandboxed")
        : ok("sandbox", `${manager.name} can run the daemon in it`),
    };
  });
  yield sandbox.finding;
}

export function serviceFinding(manager: string, { state, pid, detail, restarts, enabled }: ServiceStatus): Finding {
  const says = detail === "" ? "" : `: ${detail}`;
  const logs = "aegis edge service logs --lines 20 says why; then: aegis edge service restart";
  switch (state) {
    case "running":
    case "reloading":
      if (!enabled)
        return warning(
          "service",
          `${manager} runs it, and does not start it with the system`,
          "aegis edge service install",
        );
      return ok(
        "service",
        `${manager} runs process ${pid}${restarts ? `, started again ${restarts} times` : ""}${says}`,
      );
    case "starting":
      return warning("service", `${manager} is starting it${says}`, "wait; if that lasts: aegis edge service logs");
    case "missing":
      return warning(
        "service",
        "none is installed: the daemon ends with whoever started it",
        "aegis edge service install",
      );
    case "stopped":
      return failed("service", new AegisError("unavailable", `it is stopped${says}`), "aegis edge service restart");
    case "masked":
      return failed(
        "service",
        new AegisError("unavailable", "it is masked"),
        "systemctl --user unmask aegis-edge.service",
      );
    case "failed":
      return failed("service", new AegisError("unavailable", `it failed${says}`), logs);
  }
}
