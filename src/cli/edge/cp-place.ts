/** What SRC and DST of `edge cp` mean: a path here, or one on a host. */
import { AegisError } from "../../errors.ts";

export type Place = { kind: "here"; path: string } | { kind: "there"; context: string; node: string; path: string };

/** `[CONTEXT@]HOST:PATH`; as for scp a slash before the first colon makes it a path here, and so does a drive letter. */
export function readPlace(text: string, windows = process.platform === "win32"): Place {
  const at = text.indexOf(":");
  const slash = text.search(windows ? /[/\\]/ : /\//);
  if (at < 1 || (slash >= 0 && slash < at) || (windows && /^[a-z]:[/\\]/i.test(text)))
    return { kind: "here", path: text };
  const [, context = "", node = ""] = /^(?:([^@]*)@)?(.*)$/.exec(text.slice(0, at)) ?? [];
  const path = text.slice(at + 1);
  if (node === "") throw new AegisError("usage", `${JSON.stringify(text)} names no host before the colon`);
  if (!/^(?:\/|[a-z]:[/\\])/i.test(path))
    throw new AegisError("usage", `the path on ${node} must be absolute, not ${JSON.stringify(path)}`, {
      hint: `for example ${node}:/var/tmp/file`,
    });
  return { kind: "there", context: context || "default", node, path };
}

/** The last part of a path of either kind of system. */
export const nameOf = (path: string): string => path.replace(/[/\\]+$/, "").replace(/^.*[/\\]/, "");

/** A name in a folder on a host, written as that folder is. */
export function joinThere(folder: string, name: string): string {
  const separator = folder.includes("\\") && !folder.includes("/") ? "\\" : "/";
  return `${folder.replace(/[/\\]+$/, "")}${separator}${name}`;
}
