/** What the service's sandbox keeps from tools is told as such, and nothing else is. */
import { expect, test } from "bun:test";
import type { Access } from "../policy/access.ts";
import { nothingCaptured, type ToolResult } from "../tools/tool.ts";
import { explainHidden, hiddenBy, hiddenPlaces } from "./hidden-places.ts";

/** As systemd leaves it for a user whose home has a blank in its name. */
const user = `1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:30 / /home rw - tmpfs tmpfs rw
3 2 0:31 / /home/ann\\040b ro - tmpfs tmpfs ro
4 3 8:1 /home/ann\\040b/.aegis/edge /home/ann\\040b/.aegis/edge rw - ext4 /dev/sda1 rw
5 3 8:1 /home/ann\\040b/projects /home/ann\\040b/projects ro - ext4 /dev/sda1 rw
6 1 0:32 / /tmp rw - tmpfs tmpfs rw
`;
const system = `1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:25 /systemd/inaccessible/dir /home ro - tmpfs tmpfs rw
`;
const home = "/home/ann b";

test("a place is hidden by the nearest folder that was put over it, and not where it was shown again", () => {
  const hidden = hiddenBy(user, home);
  expect(hidden(`${home}/notes`)).toBe(home);
  expect(hidden("/home/bob/notes")).toBe("/home");
  for (const path of [`${home}/projects/a`, `${home}/.aegis/edge/x`, "/tmp/x", "/etc/passwd", "/"])
    expect(hidden(path)).toBeNull();
  expect(hiddenBy(system, "/var/lib/aegis")("/home/bob/x")).toBe("/home");
  expect(hiddenBy("", home)(`${home}/notes`)).toBeNull();
});

test("a daemon that is no service hides nothing", async () => {
  expect((await hiddenPlaces({}, "/"))("/tmp/x")).toBeNull();
});

const failure: ToolResult = {
  ...{ ok: false, exitCode: 1, stdout: nothingCaptured, stderr: nothingCaptured },
  ...{ errorKind: "nonzero_exit", errorMessage: "exit code 1" },
};
const said = async (access: Access, result = failure) =>
  (await explainHidden(result, [access], hiddenBy(user.replaceAll("\\040b", ""), "/home/ann"))).errorMessage;
const command = (...args: string[]): Access => ({ kind: "command", executable: "/bin/cat", name: "cat", args });

test("a failure names the folder to show, which is never the whole home", async () => {
  const install = "aegis edge service install --allow";
  expect(await said({ kind: "path", mode: "read", path: "/home/ann/notes" })).toEndWith(`${install} /home/ann/notes`);
  expect(await said({ kind: "path", mode: "read", path: "/home/ann/work/a" })).toEndWith(`${install} /home/ann/work`);
  expect(await said(command("-n", "--file=/home/ann/work/a"))).toMatch(/^exit code 1; the service's sandbox hides/);
  expect(await said({ kind: "shell", line: "cat '/home/ann/work/a'" })).toEndWith(`${install} /home/ann/work`);
});

test("a failure about something else, and a success, are left as they are", async () => {
  expect(await said(command("/no/such/file", "relative"))).toBe("exit code 1");
  expect(await said(command("/home/ann/projects/absent"))).toBe("exit code 1");
  expect(await said(command("/home/ann/work/a"), { ...failure, ok: true })).toBe("exit code 1");
});
