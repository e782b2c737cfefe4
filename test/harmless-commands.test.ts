/** Every spelling of a command that a freshly enrolled host runs, watched by the kernel: it looks, and nothing else. */
import { describe, expect } from "bun:test";
import { harmlessCommands } from "../src/policy/written-contexts.ts";
import { needs } from "./support/needs.ts";

/** What would change something or start something. `openat` is there for its flags. */
const watched = [
  ...["execve", "execveat", "fork", "vfork", "openat", "open", "creat", "truncate", "ftruncate", "unlink", "unlinkat"],
  ...["rename", "renameat", "renameat2", "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "chmod"],
  ...["fchmodat", "chown", "fchownat", "mount", "umount2", "kill", "reboot", "sync", "syncfs", "settimeofday"],
  ...["clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "socket"],
];

/** The calls of one run that are more than looking: its own start, reading, and asking resolver and network for names are not. */
function deeds(executable: string, args: readonly string[]): string[] {
  const command = ["strace", "-f", "-qq", "-e", `trace=?${watched.join(",?")}`, executable, ...args];
  const { exitCode, stderr } = Bun.spawnSync(command, { stdin: "ignore", timeout: 10_000 });
  if (exitCode === null) return [`${executable} ${args.join(" ")} does not end`];
  const calls = stderr.toString().match(/^(?:\[pid +\d+\] )?[a-z0-9_]+\(.*$/gm) ?? [];
  expect(calls.length).toBeGreaterThan(0); // strace saw it start
  return calls.filter((call) => {
    if (call.startsWith(`execve("${executable}"`)) return false;
    if (/\bopen(?:at)?\(/.test(call)) return !/O_RDONLY/.test(call) || /O_CREAT|O_TRUNC/.test(call);
    return !/\bsocket\((?:AF_UNIX|AF_NETLINK|AF_INET6?)\b/.test(call);
  });
}

describe("a freshly enrolled host runs", () => {
  for (const [name, args] of Object.entries(harmlessCommands)) {
    const spellings = [
      [],
      ...args.map((arg) => [arg]),
      ...args.map((arg) => [arg, ...args.filter((one) => one !== arg)]),
    ];
    needs(
      "linux",
      "command:strace",
      `command:${name}`,
    )(`${name} only to look, in each of ${spellings.length} spellings`, () => {
      const executable = Bun.which(name) ?? name;
      for (const spelling of spellings)
        expect({ spelling, deeds: deeds(executable, spelling) }).toEqual({ spelling, deeds: [] });
    });
  }

  needs(
    "linux",
    "command:strace",
    "command:touch",
  )("and a deed would be seen", () => {
    expect(deeds(Bun.which("touch") ?? "", [`/tmp/aegis-harmless-${process.pid}/absent/x`])).not.toEqual([]);
    expect(deeds(Bun.which("env") ?? "", ["true"])).not.toEqual([]);
  });
});
