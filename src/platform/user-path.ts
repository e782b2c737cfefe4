/** The user's own Path on Windows: a value of the registry that the next program started by the shell sees. */
import { AegisError } from "../errors.ts";
import type { RunProgram } from "./run-program.ts";

const key = "HKCU\\Environment";

/** Puts `folder` first, or takes it out, keeping everything else as it is written. Answers whether anything changed. */
export async function changeUserPath(run: RunProgram, folder: string, change: "add" | "remove"): Promise<boolean> {
  const query = await run("reg", ["query", key, "/v", "Path"]);
  const { type, path } = query.status === 0 ? readQuery(query.stdout) : { type: "REG_EXPAND_SZ", path: "" };
  const wanted = change === "add" ? withFolder(path, folder) : withoutFolder(path, folder);
  if (wanted === path) return false;
  const written = await run("reg", ["add", key, "/v", "Path", "/t", type, "/d", wanted, "/f"]);
  if (written.status === 0) return true;
  throw new AegisError("forbidden", `cannot change your Path: ${(written.stderr || written.stdout).trim()}`, {
    hint: `add ${folder} to Path by hand: Settings, "Edit environment variables for your account"`,
  });
}

/** What `reg query` prints of one value. */
export function readQuery(stdout: string): { type: string; path: string } {
  const match = /^\s+Path\s+(REG_\w+)[ \t]*(.*?)\r?$/im.exec(stdout);
  return { type: match?.[1] ?? "REG_EXPAND_SZ", path: match?.[2] ?? "" };
}

const sameFolder = (left: string, right: string): boolean => {
  const plain = (text: string) =>
    text.trim().replace(/^"|"$/g, "").replace(/\//g, "\\").replace(/\\+$/, "").toLowerCase();
  return plain(left) === plain(right);
};

export function withFolder(path: string, folder: string): string {
  const entries = path.split(";").filter((entry) => entry !== "");
  if (entries[0] !== undefined && sameFolder(entries[0], folder)) return path;
  return [folder, ...entries.filter((entry) => !sameFolder(entry, folder))].join(";");
}

export function withoutFolder(path: string, folder: string): string {
  const entries = path.split(";");
  const rest = entries.filter((entry) => !sameFolder(entry, folder));
  return rest.length === entries.length ? path : rest.join(";");
}
