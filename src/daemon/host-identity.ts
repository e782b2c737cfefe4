/** Who this host is and whom it believes, read from its files and checked against each other. */
import { readFile } from "node:fs/promises";
import type { EdgeConfig } from "../config/edge.ts";
import type { TrustedKeyset } from "../envelope/keyset.ts";
import type { SigningKey } from "../envelope/public-key.ts";
import { AegisError } from "../errors.ts";
import { loadControllerKeys, saveControllerKeys } from "../identity/controller-keys.ts";
import { loadNodeKey, loadNodeToken, tokenFacts } from "../identity/keyring.ts";
import { PUBLIC_FILE, writeFileAtomic } from "../platform/private-file.ts";

export interface HostIdentity {
  nodeKey: SigningKey;
  nodeToken: string;
  /** Null only with `seal: compat`. */
  keyset: TrustedKeyset | null;
}

export async function loadIdentity(config: EdgeConfig): Promise<HostIdentity & { warnings: string[] }> {
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
  if (facts.publicKey !== null && facts.publicKey !== Buffer.from(nodeKey.raw).toString("base64url"))
    throw new AegisError("config_invalid", `${config.keyPath} is not the key that ${tokenPath} is for`, {
      hint: "restore both from one backup, or enroll again with a token bound to this host: aegis edge token issue --for NODE, then aegis edge enroll --force TOKEN",
    });
  const keyset = seal === "strict" ? await loadControllerKeys(config.controllerKeysPath, sealRoot ?? "") : null;
  return { nodeKey, nodeToken, keyset, warnings: await keepPublicKey(config.keyPath, nodeKey) };
}

/** The public half is for people to look at: it follows from the key, so it is set right. The peer names it otherwise. */
async function keepPublicKey(keyPath: string, { raw }: SigningKey): Promise<string[]> {
  const path = `${keyPath}.pub`;
  const present = await readFile(path).catch(() => null);
  if (present?.equals(raw)) return [];
  await writeFileAtomic(path, raw, PUBLIC_FILE);
  return present ? [`${path} did not hold the public half of ${keyPath}; it does now`] : [];
}

export const keepKeyset = (config: EdgeConfig, keyset: TrustedKeyset): Promise<void> =>
  saveControllerKeys(config.controllerKeysPath, keyset);
