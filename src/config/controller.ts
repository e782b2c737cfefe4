/** The controller's own settings, `controller.yaml` in its data directory. */
import { join } from "node:path";
import { stringifyYAML } from "confbox/yaml";
import { z } from "zod";
import { AegisError } from "../errors.ts";
import { limits } from "../platform/limits.ts";
import { parseYaml, readTextFile } from "../platform/yaml-file.ts";
import { inWords } from "./problems.ts";

export interface ControllerConfig {
  controllerId: string;
  /** HOST:PORT that hosts dial; an IPv6 address in brackets. */
  publicEndpoint: string;
  /** RFC 3339. */
  createdAt: string;
  limits: ControllerLimits;
}

export interface ControllerLimits {
  /** Not revoked, of all tenants. */
  hosts: number;
  /** Begun by one address and not ended, in a minute. */
  enrollmentAttemptsPerMinute: number;
  /** For one tenant, in a minute. */
  enrollmentTokensPerMinute: number;
}

const atLeastOne = z.number().int().min(1).max(1_000_000);

const schema = z.strictObject({
  controller_id: z.uuid(),
  public_endpoint: z.string().regex(/^(?:\[[0-9a-fA-F:.]+\]|[^:[\]/\s]+):\d{1,5}$/, "expected HOST:PORT"),
  created_at: z.iso.datetime({ offset: true }),
  limits: z
    .strictObject({
      hosts: atLeastOne.default(limits.hostsPerController),
      enrollment_attempts_per_minute: atLeastOne.default(limits.enrollmentAttemptsPerMinute),
      enrollment_tokens_per_minute: atLeastOne.default(limits.enrollmentTokensPerMinute),
    })
    .prefault({}),
});

export const controllerConfigPath = (dataDir: string): string => join(dataDir, "controller.yaml");

export async function loadControllerConfig(dataDir: string): Promise<ControllerConfig> {
  const path = controllerConfigPath(dataDir);
  const text = await readTextFile(path);
  if (text === null)
    throw new AegisError("config_invalid", `${dataDir} holds no controller: ${path} does not exist`, {
      hint: `aegis controller init --data-dir ${dataDir} --public-endpoint HOST:50056`,
    });
  const document = parseYaml(path, text);
  const parsed = schema.safeParse(document);
  if (!parsed.success)
    throw new AegisError("config_invalid", `${path} is damaged: ${inWords(parsed.error.issues, document).join("; ")}`, {
      hint: "mend the file, or restore the data directory from a backup",
    });
  const { controller_id, public_endpoint, created_at, limits: set } = parsed.data;
  return Object.freeze({
    ...{ controllerId: controller_id, publicEndpoint: public_endpoint, createdAt: created_at },
    limits: {
      hosts: set.hosts,
      enrollmentAttemptsPerMinute: set.enrollment_attempts_per_minute,
      enrollmentTokensPerMinute: set.enrollment_tokens_per_minute,
    },
  });
}

/** Limits are their owner's to write. */
export const renderControllerConfig = (config: Omit<ControllerConfig, "limits">): string =>
  `${stringifyYAML({
    controller_id: config.controllerId,
    public_endpoint: config.publicEndpoint,
    created_at: config.createdAt,
  }).trimEnd()}\n`;
