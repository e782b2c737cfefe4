/** Who this host is and whom it believes, read from its files and checked against each other. */
import type { EdgeConfig } from "../config/edge.ts";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import type { SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { loadControllerKeys, saveControllerKeys } from "../identity/controller-keys.ts";
import { loadNodeKey, loadNodeToken, tokenFacts } from "../identity/keyring.ts";

export interface HostIdentity {
  nodeKey: SigningKey;
  nodeToken: string;
  /** Null only with `seal: compat`. */
  keyset: TrustedKeyset | null;
}

export async function loadIdentity(config: EdgeConfig): Promise<HostIdentity> {
  const { nodeId, tenantId, tokenPath, configPath, seal, sealRoot } = config;
  const nodeKey = await loadNodeKey(config.keyPath);
  const nodeToken = await loadNodeToken(tokenPath);
  const facts = tokenFacts(nodeToken);
  const mixed = (what: string) =>
    new AegisError("config_invalid", `${tokenPath} and ${configPath} do not belong together: ${what}`, {
      hint: "restore both from one backup, or enroll again: aegis edge enroll --force TOKEN",
    });
  if (!facts)
    throw new AegisError("config_invalid", `${tokenPath} is damaged: its claims cannot be read`, {
      hint: "enroll again: aegis edge enroll --force TOKEN",
    });
  if (facts.nodeId !== nodeId) throw mixed(`the token is for node ${facts.nodeId}, spec.node.id is ${nodeId}`);
  if (facts.tenantId !== null && facts.tenantId !== tenantId)
    throw mixed(`the token is for tenant ${facts.tenantId}, tenant_id is ${tenantId}`);
  const keyset = seal === "strict" ? await loadControllerKeys(config.controllerKeysPath, sealRoot ?? "") : null;
  return { nodeKey, nodeToken, keyset };
}

export const keepKeyset = (config: EdgeConfig, keyset: TrustedKeyset): Promise<void> =>
  saveControllerKeys(config.controllerKeysPath, keyset);
