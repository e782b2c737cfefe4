/** The controller's own settings, `controller.yaml` in its data directory. */
import { homedir } from "node:os";
import { join } from "node:path";
import { stringifyYAML } from "confbox/yaml";
import { z } from "zod";
import { AegisError } from "../errors.ts";
import { limits } from "../platform/limits.ts";
import { resolveFrom } from "../platform/paths.ts";
import { readTextFile } from "../platform/text-file.ts";
import { parseYaml } from "../platform/yaml-file.ts";
import { controllerOtlpSchema, type OtlpConfig, otlpConfig, otlpFiles } from "./otlp.ts";
import { inWords } from "./problems.ts";

export interface ControllerConfig {
  controllerId: string;
  /** HOST:PORT that hosts dial; an IPv6 address in brackets. */
  publicEndpoint: string;
  /** RFC 3339. */
  createdAt: string;
  limits: ControllerLimits;
  /** Whose tokens are taken besides our own; null = nobody's. */
  oidc: OidcConfig | null;
  /** Where its traces and logs go; null = nowhere, as far as this file says. */
  otlp: OtlpConfig | null;
}

/** An OpenID Connect issuer, and what its claims mean here. */
export interface OidcConfig {
  /** Exactly as the issuer writes it. */
  issuer: string;
  /** What a token must be meant for. */
  audience: string;
  /** The claim by which hosts know the operator; one that its users cannot set themselves. */
  nameClaim: string;
  /** A token gets what every grant gives that its claims match; without any it gets nothing. */
  grants: readonly OidcGrant[];
}

export interface OidcGrant {
  claim: string;
  /** The claim's text, one of its words, or one of its list. */
  value: string;
  tenant: string;
  scopes: readonly string[];
  contexts: readonly string[];
}

export interface ControllerLimits {
  /** Not revoked, of all tenants. */
  hosts: number;
  /** Begun by one address and not ended, in a minute. */
  enrollmentAttemptsPerMinute: number;
  /** For one tenant, in a minute. */
  enrollmentTokensPerMinute: number;
  /** How long ended runs and their results are kept, in days. The audit is kept for good. */
  runRetentionDays: number;
}

const atLeastOne = z.number().int().min(1).max(1_000_000);

const someText = z.string().min(1).max(512);
/** Plain http only where nobody can listen. */
const issuerUrl = z
  .url()
  .refine(
    (text) => /^https:\/\/|^http:\/\/(?:localhost|127(?:\.\d+){3}|\[::1\])(?:[:/]|$)/.test(text),
    "expected an https URL",
  );

const oidcSchema = z.strictObject({
  issuer: issuerUrl,
  audience: someText,
  name_claim: someText.default("sub"),
  grants: z
    .array(
      z.strictObject({
        claim: someText,
        value: someText,
        tenant: z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, "expected 1-63 of a-z, 0-9, inner hyphens"),
        scopes: z.array(someText).min(1),
        contexts: z.array(someText).default(["default"]),
      }),
    )
    .min(1)
    .max(1_000),
});

const schema = z.strictObject({
  controller_id: z.uuid(),
  public_endpoint: z.string().regex(/^(?:\[[0-9a-fA-F:.]+\]|[^:[\]/\s]+):\d{1,5}$/, "expected HOST:PORT"),
  created_at: z.iso.datetime({ offset: true }),
  limits: z
    .strictObject({
      hosts: atLeastOne.default(limits.hostsPerController),
      enrollment_attempts_per_minute: atLeastOne.default(limits.enrollmentAttemptsPerMinute),
      enrollment_tokens_per_minute: atLeastOne.default(limits.enrollmentTokensPerMinute),
      run_retention_days: z.number().int().min(1).max(36_500).default(limits.runRetentionDays),
    })
    .prefault({}),
  oidc: oidcSchema.optional(),
  otlp: controllerOtlpSchema.optional(),
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
  const damaged = (problems: readonly string[]) =>
    new AegisError("config_invalid", `${path} is damaged: ${problems.join("; ")}`, {
      hint: "mend the file, or restore the data directory from a backup",
    });
  if (!parsed.success) throw damaged(inWords(parsed.error.issues, document));
  const { controller_id, public_endpoint, created_at, limits: set, oidc, otlp } = parsed.data;
  const caPath = otlp?.ca_path === undefined ? null : resolveFrom(dataDir, otlp.ca_path, homedir());
  const sent = otlp && (await otlpFiles(otlp, caPath));
  if (sent && sent.problems.length > 0)
    throw damaged(sent.problems.map(({ key, message }) => `otlp.${key}: ${message}`));
  return Object.freeze({
    ...{ controllerId: controller_id, publicEndpoint: public_endpoint, createdAt: created_at },
    limits: {
      hosts: set.hosts,
      enrollmentAttemptsPerMinute: set.enrollment_attempts_per_minute,
      enrollmentTokensPerMinute: set.enrollment_tokens_per_minute,
      runRetentionDays: set.run_retention_days,
    },
    oidc: oidc
      ? { issuer: oidc.issuer, audience: oidc.audience, nameClaim: oidc.name_claim, grants: oidc.grants }
      : null,
    otlp: otlp ? otlpConfig(otlp, sent?.caPem ?? null) : null,
  });
}

/** Limits, issuers and collectors are their owner's to write. */
export const renderControllerConfig = (config: Omit<ControllerConfig, "limits" | "oidc" | "otlp">): string =>
  `${stringifyYAML({
    controller_id: config.controllerId,
    public_endpoint: config.publicEndpoint,
    created_at: config.createdAt,
  }).trimEnd()}\n`;
