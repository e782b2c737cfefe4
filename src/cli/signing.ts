/**
 * Signs a run for those of its hosts that run only what an operator has signed: shows which hosts these are by their own
 * signed names, and what would be signed; asks; and never signs for a host whose key it does not know.
 */
import type { ApiClient } from "../api/client.ts";
import { apiLimits } from "../api/limits.ts";
import { formatTarget } from "../api/target-text.ts";
import type { InvokeRequest, Preview, ResolvedHost } from "../api/types.ts";
import { type HostChallenge, readOperatorChallenge, wantsSignature } from "../envelope/operator.ts";
import { fingerprint, type PublicKey, type SigningKey } from "../envelope/public-key.ts";
import { followRotations } from "../envelope/rotation.ts";
import { sha256 } from "../envelope/statement.ts";
import { AegisError } from "../errors.ts";
import {
  addKnownNodes,
  changeKnownNode,
  type KnownNode,
  knownNodesPath,
  loadKnownNodes,
} from "../identity/known-nodes.ts";
import { type OperatorKey, readOperatorKey } from "../identity/operator-key.ts";
import { operatorKeyPath } from "../identity/operator-key-path.ts";
import { systemClock } from "../platform/clock.ts";
import type { Surroundings } from "./command.ts";
import { hostsInWords } from "./run-report.ts";
import { type SignedRun, signedRun } from "./signed-run.ts";
import { visibleJson, visibleName } from "./visible.ts";

export interface Signing {
  /** The request with its exact arguments and a proof for each host that wants one. */
  request: InvokeRequest;
  run: SignedRun;
}

/** Arguments longer than this, in characters, are shown by both ends and their digest. */
const maxShownArgs = 2 * 1024;

interface Signee {
  nodeId: string;
  challenge: HostChallenge;
  known: KnownNode | undefined;
}

/**
 * Null when nothing is to be signed: no host wants it, or this operator has no key, and then the hosts themselves refuse.
 * With `yes` nobody is asked; a host that is not known yet is refused then.
 */
export async function prepareSigning(
  client: Pick<ApiClient, "preview" | "whoami" | "host">,
  request: InvokeRequest,
  given: Surroundings,
  yes: boolean,
): Promise<Signing | null> {
  const stored = await readOperatorKey(given);
  if (!stored) return null;
  const [preview, { tenant_id: tenant }] = await Promise.all([previewed(client, request, given), client.whoami()]);
  if (!preview) return null;
  const { resolved } = preview;
  const context = request.context ?? "default";
  const known = await loadKnownNodes(given);
  const signees = resolved.flatMap((host) => {
    const challenge = challengeOf(host, tenant);
    if (!challenge || !wantsSignature(challenge, context)) return [];
    return [{ nodeId: host.node_id, challenge, known: known.get(host.node_id) }];
  });
  if (signees.length === 0) return null;

  for (const signee of signees) {
    await followKey(signee, client, given);
    checkKnown(signee, tenant, given);
  }
  checkAsked(request, signees, yes);
  await meet(signees, [...known.values()], tenant, given);

  const argsText = request.args_json ?? JSON.stringify(request.args ?? {});
  const deadlineMs = Math.round((request.policy?.deadline_secs ?? apiLimits.deadlineDefaultSecs) * 1000);
  const call = { tenant, context, tool: request.tool, argsJson: Buffer.from(argsText, "utf8"), deadlineMs };
  const shown = { target: request.target, operator: stored.publicKey, argsText, ...call };
  show({ ...shown, signees, others: resolved.length - signees.length }, given);
  await ask(signees, given, yes);
  const operator = await unlock(stored, given);
  const run = signedRun({
    ...{ operator, call, now: systemClock.now },
    hosts: signees.map(({ nodeId, challenge: { key, challenge } }) => ({ nodeId, key, challenge })),
  });
  const { args: _args, ...rest } = request;
  return { request: { ...rest, args_json: argsText, operator_proofs: { ...run.proofs } }, run };
}

/** Null for a token that may run calls and not look at hosts: nothing can be signed then, and most hosts want nothing signed. */
async function previewed(
  client: Pick<ApiClient, "preview">,
  { target }: InvokeRequest,
  { terminal }: Surroundings,
): Promise<Preview | null> {
  try {
    return await client.preview(target);
  } catch (thrown) {
    if (AegisError.from(thrown).code !== "forbidden") throw thrown;
    terminal.note("nothing is signed: this token may not preview a target (aegis.edge.fleet.read)");
    return null;
  }
}

/** Null where the controller has none of a host. One that the host itself cannot have made is not passed over. */
function challengeOf({ node_id: nodeId, name, operator_challenge: text }: ResolvedHost, tenant: string) {
  if (text === null) return null;
  const challenge = readOperatorChallenge(Buffer.from(text, "base64url"), { nodeId, tenant });
  if (challenge) return challenge;
  throw new AegisError(
    "conflict",
    `what the controller shows as host ${visibleName(name)} is not signed by any host of tenant ${visibleName(tenant)}; nothing was signed`,
    { hint: "do not trust this controller before you know why" },
  );
}

/** A host may change its key. The one it was known by has signed for that, or it is a stranger under its name. */
async function followKey(signee: Signee, client: Pick<ApiClient, "host">, given: Surroundings): Promise<void> {
  const { nodeId, challenge, known } = signee;
  if (!known || known.key.kid === challenge.key.kid) return;
  // Whoever may not look at hosts is told that the key changed, which is all that can be said then.
  const detail = await client.host(nodeId).catch(() => null);
  const bytes = (text: string) => Buffer.from(text, "base64url");
  const changes = (detail?.key_changes ?? []).map(({ request, old_signature, new_signature }) => ({
    ...{ bytes: bytes(request), oldSignature: bytes(old_signature), newSignature: bytes(new_signature) },
  }));
  const key = followRotations(nodeId, known.key, changes);
  if (key.kid !== challenge.key.kid) return;
  const moved = { ...known, key };
  await changeKnownNode(given, moved);
  signee.known = moved;
  given.terminal.note(
    `${visibleName(known.name)} has changed its key to ${fingerprint(key)}, and the former one signed for that`,
  );
}

function checkKnown({ nodeId, challenge, known }: Signee, tenant: string, given: Surroundings): void {
  if (!known) return;
  const changed = (what: string) =>
    new AegisError("conflict", `host ${visibleName(known.name)} (${nodeId}) ${what}; nothing was signed`, {
      hint: `if its owner confirms that on the host (aegis edge status), remove its line from ${knownNodesPath(given)}`,
    });
  if (known.key.kid !== challenge.key.kid)
    throw changed(`has another key than before: it was ${fingerprint(known.key)}, it is ${fingerprint(challenge.key)}`);
  if (known.tenant !== tenant) throw changed(`was one of tenant ${visibleName(known.tenant)}`);
}

/** What was asked for by name must call itself so: a controller could lead the name elsewhere. */
function checkAsked({ target }: InvokeRequest, signees: readonly Signee[], yes: boolean): void {
  if (!yes) return;
  const stranger = signees.find((signee) => !isAskedFor(target, signee));
  if (!stranger) return;
  throw new AegisError(
    "conflict",
    `the controller leads ${formatTarget(target)} to a host that calls itself ${visibleName(stranger.challenge.hostName)}; nothing was signed`,
    { hint: `ask for it by that name or by its id, ${stranger.nodeId}` },
  );
}

/** True for targets that name no host. */
function isAskedFor(target: InvokeRequest["target"], { nodeId, challenge }: Signee): boolean {
  if (typeof target !== "object") return true;
  const names = "Node" in target ? [target.Node] : "Nodes" in target ? target.Nodes : null;
  return (
    names === null ||
    names.some((name) => name === challenge.hostName || (name.length >= 6 && nodeId.startsWith(name.toLowerCase())))
  );
}

/** Hosts met for the first time: their fingerprints are compared by a person, then kept. */
async function meet(
  signees: readonly Signee[],
  known: readonly KnownNode[],
  tenant: string,
  given: Surroundings,
): Promise<void> {
  const strangers = signees.filter(({ known }) => !known);
  if (strangers.length === 0) return;
  const { terminal, stop } = given;
  const lines = strangers.map(({ nodeId, challenge: { hostName, key } }) => {
    const twin = known.find((one) => one.name === hostName && one.tenant === tenant);
    const warning = twin ? `; ANOTHER HOST OF THIS NAME IS KNOWN: ${twin.nodeId}` : "";
    return `  ${visibleName(hostName)}  ${nodeId}  ${fingerprint(key)}${warning}`;
  });
  if (!terminal.interactive)
    throw new AegisError(
      "usage",
      `not known here, of tenant ${visibleName(tenant)}, and nobody can compare keys:\n${lines.join("\n")}`,
      { hint: `add each host's own line (known_node in: aegis edge status -o json) to ${knownNodesPath(given)}` },
    );
  terminal.note(`not known here yet; each host's owner sees its key with: aegis edge status`);
  for (const line of lines) terminal.note(line);
  if (!(await terminal.confirm("are these their keys?", stop)))
    throw new AegisError("cancelled", "nothing was signed, and no key was kept");
  const met = strangers.map(({ nodeId, challenge: { key, hostName } }) => ({ nodeId, key, tenant, name: hostName }));
  await addKnownNodes(given, met);
}

interface Shown {
  target: InvokeRequest["target"];
  operator: PublicKey;
  signees: readonly Signee[];
  /** Hosts of the run for which nothing is signed. */
  others: number;
  tenant: string;
  context: string;
  tool: string;
  argsText: string;
  deadlineMs: number;
}

function show({ target, operator, signees, others, argsText, ...call }: Shown, { terminal }: Surroundings): void {
  const { note } = terminal;
  note(`to be signed with ${fingerprint(operator)}:`);
  note(`  tool      ${visibleName(call.tool)}`);
  note(`  arguments ${shownArgs(argsText)}`);
  note(`  context   ${visibleName(call.context)}`);
  note(`  tenant    ${visibleName(call.tenant)}`);
  note(`  deadline  ${call.deadlineMs / 1000} s`);
  note(`  for ${hostsInWords(signees.length)}, by their own names:`);
  for (const signee of signees) {
    const { nodeId, challenge, known } = signee;
    const formerly = known && known.name !== challenge.hostName ? `, known as ${visibleName(known.name)}` : "";
    const mistaken = isAskedFor(target, signee) ? "" : `, NOT what you asked for: ${visibleJson(formatTarget(target))}`;
    note(`    ${visibleName(challenge.hostName)}  ${nodeId}${formerly}${mistaken}`);
  }
  if (others > 0) note(`  ${hostsInWords(others)} more of the target want no signature`);
}

function shownArgs(text: string): string {
  const shown = visibleJson(text);
  if (shown.length <= maxShownArgs) return shown;
  const half = maxShownArgs / 2;
  const digest = Buffer.from(sha256(text)).toString("hex");
  return `${shown.slice(0, half)}\n  ... ${shown.length - maxShownArgs} characters not shown, SHA-256 of all: ${digest} ...\n  ${shown.slice(-half)}`;
}

async function ask(signees: readonly Signee[], { terminal, stop }: Surroundings, yes: boolean): Promise<void> {
  if (yes) return;
  if (!terminal.interactive)
    throw new AegisError(
      "usage",
      `only your signature makes ${hostsInWords(signees.length)} run this, and nobody can be asked`,
      { hint: "aegis edge fleet run --yes signs without asking" },
    );
  if (!(await terminal.confirm(`sign and run it on ${hostsInWords(signees.length)}?`, stop)))
    throw new AegisError("cancelled", "nothing was signed, and nothing was run");
}

/** How often a passphrase may be mistyped. */
const maxTries = 3;

async function unlock(stored: OperatorKey, given: Surroundings): Promise<SigningKey> {
  const { terminal, stop } = given;
  const path = operatorKeyPath(given);
  for (let tries = 0; tries < maxTries; tries++) {
    const passphrase = stored.locked ? await terminal.hidden(`passphrase of ${path}: `, stop) : "";
    if (passphrase === null)
      throw new AegisError("usage", `${path} is locked with a passphrase, and nobody can be asked for it`, {
        hint: "sign at a terminal",
      });
    const key = await stored.open(passphrase);
    if (key) return key;
    terminal.warn("that is not the passphrase");
  }
  throw new AegisError("unauthenticated", `${path} stays locked; nothing was signed`);
}
