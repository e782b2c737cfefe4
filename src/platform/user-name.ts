/** The name of this process's user, which the runtime takes from the environment and so does not always know. */
import { readFile } from "node:fs/promises";
import { userInfo } from "node:os";

/** Empty for a user id that no name belongs to. */
export async function userName(): Promise<string> {
  const uid = process.getuid?.();
  if (uid !== undefined) {
    const passwd = await readFile("/etc/passwd", "utf8").catch(() => "");
    for (const line of passwd.split("\n")) {
      const [name = "", , id] = line.split(":");
      if (id === String(uid)) return name;
    }
  }
  try {
    const { username } = userInfo();
    return username === "unknown" ? "" : username;
  } catch {
    return "";
  }
}
