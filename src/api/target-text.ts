/** Targets as people type them: `@web-1`, `group:web`, `all`, or what a host must be: `os=linux tags=AnyOf(prod,dev)`. */
import { AegisError } from "../errors.ts";
import { nearest } from "../platform/nearest.ts";
import { readValue } from "./read.ts";
import { type LabelRule, type Selector, type TagRule, type Target, targetSchema } from "./target.ts";

const forms = "write @NODE, group:NAME, all, or parts such as: os=linux tags=prod labels=region=eu tools=docker";
const keys = ["os", "arch", "tools", "labels", "tags"] as const;

/** Throws `usage` naming the word that is wrong. With `bareNode`, a single word of no other form is a node. */
export function parseTarget(text: string, { bareNode = false } = {}): Target {
  const words = text.trim().split(/\s+/).filter(Boolean);
  const [first, ...rest] = words;
  if (first === undefined) throw refuse("the target is empty");
  if (/^all$/i.test(first) && rest.length === 0) return "All";
  const alone = /^(?:@|group:|all$)/i.exec(first);
  if (alone && rest.length > 0) throw refuse(`${quote(first)} stands alone, and ${quote(rest[0] ?? "")} follows it`);
  if (first.startsWith("@")) return checked(text, nodes(first.slice(1)));
  if (first.startsWith("group:")) return checked(text, { Group: first.slice("group:".length) });
  if (bareNode && rest.length === 0 && !first.includes("=")) return checked(text, nodes(first));
  return checked(text, { Selector: selector(words) });
}

/** The text that `parseTarget` turns back into the same hosts. */
export function formatTarget(target: Target): string {
  if (target === "All" || "All" in target) return "all";
  if ("Node" in target) return `@${target.Node}`;
  if ("Nodes" in target) return `@${target.Nodes.join(",")}`;
  if ("Group" in target) return `group:${target.Group}`;
  return formatSelector(target.Selector);
}

/** Parts alone, as a group is defined by them. */
export function parseSelector(text: string): Selector {
  const target = checked(text, { Selector: selector(text.trim().split(/\s+/).filter(Boolean)) });
  return (target as { Selector: Selector }).Selector;
}

export function formatSelector({ os, arch, tools = [], labels = [], tags = [] }: Selector): string {
  const words = [os && `os=${os}`, arch && `arch=${arch}`, tools.length > 0 && `tools=${tools.join(",")}`];
  return [...words.filter(Boolean), ...labels.map(labelWord), ...tags.map(tagWord)].join(" ");
}

function labelWord(rule: LabelRule): string {
  if ("Equals" in rule) return `labels=${rule.Equals.join("=")}`;
  if ("Exists" in rule) return `labels=Exists(${rule.Exists})`;
  return `labels=In(${[rule.In[0], ...rule.In[1]].join(",")})`;
}

function tagWord(rule: TagRule): string {
  if ("Has" in rule) return `tags=${rule.Has}`;
  const [name, list] = Object.entries(rule)[0] as [string, string[]];
  return `tags=${name}(${list.join(",")})`;
}

const nodes = (text: string): unknown => {
  const names = text.split(",").map((name) => name.replace(/^@/, ""));
  return names.length === 1 ? { Node: names[0] } : { Nodes: names };
};

function selector(words: readonly string[]): unknown {
  const found: { os?: string; arch?: string; tools?: string[]; labels?: unknown[]; tags?: unknown[] } = {};
  for (const word of words) {
    const [, key = "", value = ""] = /^([^=]*)=(.*)$/s.exec(word) ?? [];
    if (!key || !value) throw refuse(`${quote(word)} is no part of a target`);
    switch (key) {
      case "os":
      case "arch":
        if (found[key] !== undefined) throw refuse(`${key} is given twice`);
        found[key] = value;
        break;
      case "tools":
        found.tools = [...(found.tools ?? []), ...value.split(",")];
        break;
      case "labels":
        found.labels = [...(found.labels ?? []), label(word, value)];
        break;
      case "tags":
        found.tags = [...(found.tags ?? []), tag(word, value)];
        break;
      default: {
        const meant = nearest(key, keys);
        throw refuse(`${quote(word)}: there is no ${quote(key)}${meant ? `; did you mean ${meant}=?` : ""}`);
      }
    }
  }
  return found;
}

/** `Name(a,b)` -> its name and list; null for a plain word. */
function bracketed(value: string): { name: string; list: string[] } | null {
  const match = /^(\w+)\(([^()]*)\)$/.exec(value);
  return match ? { name: match[1] ?? "", list: (match[2] ?? "").split(",") } : null;
}

function label(word: string, value: string): unknown {
  const rule = bracketed(value);
  if (!rule) {
    const at = value.indexOf("=");
    if (at < 1) throw refuse(`${quote(word)} needs a value: labels=KEY=VALUE, or labels=Exists(KEY)`);
    return { Equals: [value.slice(0, at), value.slice(at + 1)] };
  }
  const [key, ...values] = rule.list;
  if (rule.name === "Exists" && values.length === 0) return { Exists: key };
  if (rule.name === "In" && values.length > 0) return { In: [key, values] };
  throw refuse(`${quote(word)} is neither labels=Exists(KEY) nor labels=In(KEY,VALUE,...)`);
}

function tag(word: string, value: string): unknown {
  const rule = bracketed(value);
  if (!rule) return { Has: value };
  if (["AnyOf", "AllOf", "NoneOf"].includes(rule.name)) return { [rule.name]: rule.list };
  throw refuse(`${quote(word)} is neither tags=TAG nor tags=AnyOf(...), AllOf(...) or NoneOf(...)`);
}

const quote = (text: string) => JSON.stringify(text);
const refuse = (message: string) => new AegisError("usage", `target: ${message}`, { hint: forms });

function checked(text: string, value: unknown): Target {
  const outcome = readValue(targetSchema, value);
  if (outcome.kind === "value") return outcome.value;
  throw refuse(`${quote(text)}: ${outcome.problems.map(({ message }) => message).join("; ")}`);
}
