/** Which hosts a request means: by id, by group, by what they are, or all of them. */
import { z } from "zod";
import { apiLimits } from "./limits.ts";

/** No white space, comma or bracket, so that every word can be written in the text form. */
const word = (what: string, max: number) =>
  z.string().regex(new RegExp(`^[^\\s,()=]{1,${max}}$`, "u"), {
    error: `${what} has 1-${max} characters, without white space, comma, equals sign or brackets`,
  });

export const tagSchema = word("a tag", apiLimits.tagChars);
const labelKey = word("a label's key", apiLimits.tagChars);
/** Values may hold `=`, which never starts them. */
const labelValue = z.string().regex(new RegExp(`^[^\\s,()]{1,${apiLimits.tagChars}}$`, "u"), {
  error: `a label's value has 1-${apiLimits.tagChars} characters, without white space, comma or brackets`,
});

export const labelRuleSchema = z.union([
  z.strictObject({ Equals: z.tuple([labelKey, labelValue]) }),
  z.strictObject({ Exists: labelKey }),
  z.strictObject({ In: z.tuple([labelKey, z.array(labelValue).min(1)]) }),
]);

export const tagRuleSchema = z.union([
  z.strictObject({ Has: tagSchema }),
  z.strictObject({ AnyOf: z.array(tagSchema).min(1) }),
  z.strictObject({ AllOf: z.array(tagSchema).min(1) }),
  z.strictObject({ NoneOf: z.array(tagSchema).min(1) }),
]);

/** Every part must hold; an empty selector holds for every host. */
export const selectorSchema = z.strictObject({
  os: labelValue.nullable().optional(),
  arch: labelValue.nullable().optional(),
  /** Local tools the host must all have, such as `docker`. */
  tools: z.array(word("a tool", apiLimits.tagChars)).optional(),
  labels: z.array(labelRuleSchema).optional(),
  tags: z.array(tagRuleSchema).optional(),
});

export const isEmptySelector = ({ os, arch, tools = [], labels = [], tags = [] }: Selector): boolean =>
  !os && !arch && tools.length + labels.length + tags.length === 0;

/** A node's id, its name, or the first six or more characters of its id. */
const nodeName = z.string().regex(/^[^\s,@][^\s,]{0,254}$/u, {
  error: "a node is an id, the start of one, or a host name, without white space or comma",
});
export const groupNameSchema = z.string().regex(new RegExp(`^[^\\s,@]{1,${apiLimits.nameChars}}$`, "u"), {
  error: `a group's name has 1-${apiLimits.nameChars} characters, without white space or comma`,
});

export const targetSchema = z.union(
  [
    z.literal("All"),
    z.strictObject({ All: z.null() }),
    z.strictObject({ Node: nodeName }),
    z.strictObject({ Nodes: z.array(nodeName).min(1).max(apiLimits.nodes) }),
    z.strictObject({ Group: groupNameSchema }),
    z.strictObject({
      Selector: selectorSchema.refine((selector) => !isEmptySelector(selector), {
        error: 'an empty selector means no host in particular; say "All" for all of them',
      }),
    }),
  ],
  {
    error: (issue) =>
      `${JSON.stringify(issue.input)?.slice(0, 200)} is no target: give "All", {"Node":"ID"}, {"Nodes":["ID"]}, {"Group":"NAME"} or {"Selector":{...}}`,
  },
);

export type LabelRule = z.infer<typeof labelRuleSchema>;
export type TagRule = z.infer<typeof tagRuleSchema>;
export type Selector = z.infer<typeof selectorSchema>;
export type Target = z.infer<typeof targetSchema>;

/** What a selector looks at. */
export interface SelectorSubject {
  os: string;
  arch: string;
  localTools: readonly string[];
  labels: Readonly<Record<string, string>>;
  tags: readonly string[];
}

export function matchesSelector(selector: Selector, host: SelectorSubject): boolean {
  const { os, arch, tools = [], labels = [], tags = [] } = selector;
  return (
    (!os || os === host.os) &&
    (!arch || arch === host.arch) &&
    tools.every((tool) => host.localTools.includes(tool)) &&
    labels.every((rule) => matchesLabel(rule, host.labels)) &&
    tags.every((rule) => matchesTags(rule, host.tags))
  );
}

function matchesLabel(rule: LabelRule, labels: Readonly<Record<string, string>>): boolean {
  const value = (key: string) => (Object.hasOwn(labels, key) ? labels[key] : undefined);
  if ("Equals" in rule) return value(rule.Equals[0]) === rule.Equals[1];
  if ("Exists" in rule) return value(rule.Exists) !== undefined;
  return rule.In[1].some((allowed) => value(rule.In[0]) === allowed);
}

function matchesTags(rule: TagRule, tags: readonly string[]): boolean {
  const has = (tag: string) => tags.includes(tag);
  if ("Has" in rule) return has(rule.Has);
  if ("AnyOf" in rule) return rule.AnyOf.some(has);
  if ("AllOf" in rule) return rule.AllOf.every(has);
  return !rule.NoneOf.some(has);
}
