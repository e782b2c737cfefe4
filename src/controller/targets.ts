/** Turns a target into the tenant's hosts it means: those that can be asked now, and why the others cannot. */

import { isEmptySelector, matchesSelector, type Selector, selectorSchema, type Target } from "../api/target.ts";
import type { SkippedHost, SkipReason } from "../api/types.ts";
import { AegisError } from "../errors.ts";
import type { GroupRow, Store } from "../store/store.ts";
import type { LiveNodes } from "./dispatch-types.ts";
import { type KnownHost, knownHost } from "./host-view.ts";

export interface Resolution {
  /** In the order of names. */
  resolved: readonly KnownHost[];
  skipped: readonly SkippedHost[];
}

export interface Targets {
  /**
   * Throws `not_found` for a node or group the tenant does not have. With `tool`, hosts without it are skipped too,
   * and of several hosts those whose tool is not for fleets; one host alone is asked anyway and answers for itself.
   */
  resolve(tenantId: string, target: Target, tool?: string): Promise<Resolution>;
  /** One host by its id, its name or the start of its id. */
  find(tenantId: string, name: string): Promise<KnownHost>;
  /** What a group's selector and pinned members stand for. */
  members(tenantId: string, group: { selector: Selector; pinnedMembers: readonly string[] }): Promise<KnownHost[]>;
}

/** Shortest start of an id that stands for it. */
const minPrefix = 6;
const fullId = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function createTargets({ store, nodes }: { store: Store; nodes: LiveNodes }): Targets {
  const hosts = async (tenantId: string): Promise<KnownHost[]> => (await store.nodes(tenantId)).map(knownHost);

  /** Most callers name a host by its id, and need not look at all others. */
  async function byFullId(tenantId: string, name: string): Promise<KnownHost | null> {
    const row = fullId.test(name) ? await store.node(name.toLowerCase()) : null;
    return row?.tenantId === tenantId ? knownHost(row) : null;
  }
  const find = async (tenantId: string, name: string): Promise<KnownHost> =>
    (await byFullId(tenantId, name)) ?? pick((await store.nodesNamed(tenantId, name)).map(knownHost), name);

  async function chosen(tenantId: string, target: Target): Promise<KnownHost[]> {
    if (typeof target === "object" && "Node" in target) return [await find(tenantId, target.Node)];
    const all = await hosts(tenantId);
    const present = all.filter(({ row }) => row.revokedAt === null);
    if (target === "All" || "All" in target) return present;
    if ("Nodes" in target) return [...new Set(target.Nodes.map((name) => pick(all, name)))];
    if ("Group" in target) {
      const group = await store.group(tenantId, target.Group);
      if (!group)
        throw new AegisError("not_found", `no group ${JSON.stringify(target.Group)} in this tenant`, {
          hint: "aegis edge group ls",
        });
      return membersOf(present, { selector: groupSelector(group), pinnedMembers: group.pinnedMembers });
    }
    return present.filter((host) => matches(target.Selector, host));
  }

  function reasonToSkip({ row, tools }: KnownHost, tool: string | undefined, alone: boolean): SkipReason | null {
    if (row.revokedAt !== null) return "revoked";
    const status = nodes.status(row.nodeId);
    if (status !== "connected") return status;
    if (nodes.get(row.nodeId)?.paused) return "paused";
    // A host that describes no tools at all, as older daemons do, is asked.
    if (tool === undefined || alone || tools.size === 0) return null;
    const descriptor = tools.get(tool);
    if (!descriptor) return "tool_missing";
    return descriptor.fleetCapable ? null : "not_fleet_capable";
  }

  return {
    async resolve(tenantId, target, tool) {
      const members = (await chosen(tenantId, target)).sort(byName);
      const alone = typeof target === "object" && "Node" in target;
      const resolved: KnownHost[] = [];
      const skipped: SkippedHost[] = [];
      for (const host of members) {
        const reason = reasonToSkip(host, tool, alone);
        if (reason === null) resolved.push(host);
        else skipped.push({ node_id: host.row.nodeId, name: host.name, reason });
      }
      return { resolved, skipped };
    },
    find,
    members: async (tenantId, group) =>
      membersOf(
        (await hosts(tenantId)).filter(({ row }) => row.revokedAt === null),
        group,
      ).sort(byName),
  };
}

/** A group's selector, as it was checked when it was stored. */
export const groupSelector = (row: GroupRow): Selector => selectorSchema.parse(JSON.parse(row.selector));

const byName = (a: KnownHost, b: KnownHost): number =>
  a.name < b.name ? -1 : a.name > b.name ? 1 : a.row.nodeId < b.row.nodeId ? -1 : 1;

/** An empty selector holds for no host here: such a group has its pinned members only. */
function membersOf(
  present: readonly KnownHost[],
  { selector, pinnedMembers }: { selector: Selector; pinnedMembers: readonly string[] },
): KnownHost[] {
  const selects = !isEmptySelector(selector);
  return present.filter((host) => pinnedMembers.includes(host.row.nodeId) || (selects && matches(selector, host)));
}

const matches = (selector: Selector, { facts, row }: KnownHost): boolean =>
  matchesSelector(selector, { ...facts, tags: row.tags });

/** The full id wins over a name, a name over the start of an id; a host that is gone is found by its full id only. */
function pick(hosts: readonly KnownHost[], name: string): KnownHost {
  const byId = hosts.find(({ row }) => row.nodeId === name.toLowerCase());
  if (byId) return byId;
  const present = hosts.filter(({ row }) => row.revokedAt === null);
  const named = present.filter((host) => host.name === name);
  const found =
    named.length > 0 || name.length < minPrefix
      ? named
      : present.filter(({ row }) => row.nodeId.startsWith(name.toLowerCase()));
  const [first, ...others] = found;
  if (!first)
    throw new AegisError("not_found", `no host ${JSON.stringify(name)} in this tenant`, { hint: "aegis edge ls" });
  if (others.length === 0) return first;
  const ids = found.slice(0, 5).map((host) => `${host.row.nodeId} (${host.name})`);
  throw new AegisError("conflict", `${JSON.stringify(name)} may mean ${found.length} hosts: ${ids.join(", ")}`, {
    hint: "give the full id",
  });
}
