/** What a context lets through: a table whose every row names the attack, or the honest use that must keep working. */
import { describe, expect, test } from "bun:test";
import { parseYAML, stringifyYAML } from "confbox/yaml";
import type { Access } from "../src/policy/access.ts";
import { type SecurityContext, securityContextsSchema } from "../src/policy/context.ts";
import { type CallToJudge, evaluate } from "../src/policy/evaluate.ts";
import type { PathWorld } from "../src/policy/path-rules.ts";
import { defaultContext, operatorContext } from "../src/policy/written-contexts.ts";

const world: PathWorld = {
  home: "/home/ann",
  protectedPaths: [
    ...["/home/ann/.aegis/edge", "/srv/aegis-state", "/usr/local/bin/aegis"],
    "/home/ann/.config/systemd/user/aegis-edge.service",
  ],
  style: "posix",
};
const windows: PathWorld = {
  home: "C:\\Users\\Ann",
  protectedPaths: ["C:\\Users\\Ann\\.aegis\\edge"],
  style: "windows",
};
const ann = { sub: "ann", scopes: ["aegis.edge.fleet.manage"] };

/** Written as an owner would, and read as the daemon reads it. */
const contexts = (yaml: string): SecurityContext[] => securityContextsSchema.parse(parseYAML(yaml));
const context = (capabilities: string, rest = ""): SecurityContext =>
  contexts(`- {name: t, principals: [{sub: "*"}], ${rest} capabilities: [${capabilities}]}`)[0] as SecurityContext;
const written = (value: unknown): SecurityContext => contexts(stringifyYAML([value]))[0] as SecurityContext;

type Call = Pick<CallToJudge, "tool" | "accesses">;
const path = (tool: string, text: string, mode: "read" | "write" = "read"): Call => ({
  tool,
  accesses: [{ kind: "path", mode, path: text }],
});
const read = (text: string) => path("fs.read", text);
const write = (text: string) => path("fs.write", text, "write");
/** A command as cmd.run states it: what was typed, and the file it resolves to. */
const command = (name: string, args: readonly string[] = [], executable = `/usr/bin/${name}`): Access => ({
  kind: "command",
  name,
  executable,
  args,
});
const run = (name: string, args: readonly string[] = [], executable?: string): Call => ({
  tool: "cmd.run",
  accesses: [command(name, args, executable)],
});
const env = (...names: string[]): Call => ({
  tool: "cmd.run",
  accesses: [command("make"), ...names.map((name) => ({ kind: "env", name }) as const)],
});
const shell = (line: string): Call => ({ tool: "cmd.run", accesses: [{ kind: "shell", line }] });
const nothing = (tool: string): Call => ({ tool, accesses: [] });

/** What is expected: true, or what the refusal must speak of, so that no row is refused for another reason. */
type Row = readonly [name: string, call: Call, expected: true | RegExp];
interface Table {
  title: string;
  context: SecurityContext;
  world?: PathWorld;
  caller?: CallToJudge["caller"];
  rows: readonly Row[];
}

const outside = /path_allowlist does not hold/;
const plain = /no absolute path in its plain form/;
const isProtected = /is protected/;
const usual = /usual path_denylist/;
const noCommand = /command_allowlist does not hold/;
const noArgument = /args_allowlist does not hold/;
const deniedArgument = /args_denylist holds/;
const noSubcommand = /subcommand_allowlist of/;
const noTool = /no capability is for/;
const aShell = /is a shell and run_as_shell is not set/;

const docs = context('{tool_pattern: "fs.*", path_allowlist: [/home/ann/docs]}');
const everyPath = context('{tool_pattern: "fs.*", path_allowlist: ["**"]}');

const tables: Table[] = [
  {
    title: "tool patterns",
    context: context(
      '{tool_pattern: "fs.*", path_allowlist: ["**"]}, {tool_pattern: mcp.git.log}, {tool_pattern: host.info}',
    ),
    rows: [
      ["a tool below the prefix", read("/srv/x"), true],
      ["a tool two dots below the prefix", path("fs.tree.walk", "/srv/x"), true],
      ["a longer word that begins like the prefix", path("fsx.read", "/srv/x"), noTool],
      ["the prefix itself, as the peer lets pass", path("fs", "/srv/x"), noTool],
      ["the prefix with nothing behind its dot", path("fs.", "/srv/x"), /no capability|states no/],
      ["the prefix behind another dot", path("x.fs.read", "/srv/x"), noTool],
      ["another case", path("FS.read", "/srv/x"), noTool],
      ["a look-alike letter", path("fѕ.read", "/srv/x"), noTool],
      ["an exact name", nothing("host.info"), true],
      ["an exact name with more letters", nothing("host.infox"), noTool],
      ["an exact name with a further part", nothing("host.info.x"), noTool],
      ["an exact name cut short", nothing("host.inf"), noTool],
      ["an exact name with a space", nothing("host.info "), noTool],
      ["an exact name with a newline", nothing("host.info\n"), noTool],
      ["an exact name with a zero byte", nothing("host.info\0"), noTool],
      ["an exact MCP tool", nothing("mcp.git.log"), true],
      ["another tool of that MCP server", nothing("mcp.git.push"), noTool],
      ["that tool of another MCP server", nothing("mcp.gitx.log"), noTool],
      ["a pattern for a name", nothing("*"), noTool],
      ["a name that is empty", nothing(""), noTool],
      ["a name that every object has", nothing("constructor"), noTool],
    ],
  },
  {
    title: "cmd.run by its exact name",
    context: context('{tool_pattern: cmd.run, command_allowlist: ["*"]}'),
    rows: [
      ["the tool", run("uptime"), true],
      ["a tool that begins like it", { tool: "cmd.runx", accesses: [command("uptime")] }, noTool],
      ["a tool below it", { tool: "cmd.run.x", accesses: [command("uptime")] }, noTool],
      ["the tool without anything to judge", nothing("cmd.run"), /states no command/],
      ["only a variable to judge", { tool: "cmd.run", accesses: [{ kind: "env", name: "LANG" }] }, /states no command/],
    ],
  },
  {
    title: "deny_list",
    context: context(
      '{tool_pattern: "*", path_allowlist: ["**"], command_allowlist: ["*"]}',
      'deny_list: [fs.write, "mcp.*"],',
    ),
    rows: [
      ["what is not on it", read("/srv/x"), true],
      ["an exact entry, against a capability for everything", write("/srv/x"), /deny_list holds fs\.write/],
      ["a prefix, against a capability for everything", nothing("mcp.git.log"), /deny_list holds mcp\.\*/],
      ["the prefix itself is no tool below it", nothing("mcp"), true],
      ["a longer word than the entry", path("fs.writer", "/srv/x", "write"), true],
    ],
  },
  {
    title: "deny_list of everything",
    context: context('{tool_pattern: "*"}', 'deny_list: ["*"],'),
    rows: [["denial before any capability", nothing("host.info"), /deny_list holds \*/]],
  },
  {
    title: "a folder",
    context: docs,
    rows: [
      ["a file in it", read("/home/ann/docs/a.txt"), true],
      ["the folder itself", path("fs.list", "/home/ann/docs"), true],
      ["a file far below it", read("/home/ann/docs/a/b/c/d.txt"), true],
      ["a name with a newline", read("/home/ann/docs/a\nb"), true],
      ["a name with spaces and quotes", read("/home/ann/docs/a \"b\" 'c'"), true],
      ["a name with a backslash, which is a letter here", read("/home/ann/docs/a\\..\\b"), true],
      ["a name of three dots", read("/home/ann/docs/..."), true],
      ["a name that begins with two dots", read("/home/ann/docs/..a"), true],
      ["traversal upwards", read("/home/ann/docs/../secret"), plain],
      ["traversal upwards and back", read("/home/ann/docs/../docs/a"), plain],
      ["traversal to its end", read("/home/ann/docs/.."), plain],
      ["a dot", read("/home/ann/docs/./a"), plain],
      ["a dot at the end", read("/home/ann/docs/."), plain],
      ["two slashes", read("/home/ann/docs//a"), plain],
      ["two slashes at the start", read("//home/ann/docs/a"), plain],
      ["a slash at the end", read("/home/ann/docs/a/"), plain],
      ["the folder with a slash at the end", path("fs.list", "/home/ann/docs/"), plain],
      ["a relative path", read("docs/a"), plain],
      ["a relative path with a dot", read("./docs/a"), plain],
      ["a tilde that nobody expands", read("~/docs/a"), plain],
      ["a variable that nobody expands", read("$HOME/docs/a"), plain],
      ["an empty path", read(""), plain],
      ["a path of one zero byte", read("\0"), plain],
      ["a zero byte behind an allowed name", read("/home/ann/docs/a\0/../../../etc/shadow"), plain],
      ["a zero byte inside a name", read("/home/ann/docs/a\0.txt"), plain],
      ["half a surrogate pair, which names another file", read("/home/ann/docs/\ud800"), plain],
      ["a URL", read("file:///home/ann/docs/a"), plain],
      ["a Windows path", read("C:\\home\\ann\\docs\\a"), plain],
      ["percent signs are letters, not traversal", read("/home/ann/docs/%2e%2e/a"), true],
      ["a sibling that begins like it", read("/home/ann/docs-private/a"), outside],
      ["a sibling with a letter more", read("/home/ann/docsx"), outside],
      ["a sibling with a space", read("/home/ann/docs /a"), outside],
      ["the folder above", path("fs.list", "/home/ann"), outside],
      ["the root", path("fs.list", "/"), outside],
      ["another case", read("/home/ann/Docs/a"), outside],
      ["a look-alike letter", read("/home/ann/dоcs/a"), outside],
      ["the folder further down in another path", read("/mnt/home/ann/docs/a"), outside],
      ["where a symbolic link out of it leads", read("/etc/shadow"), outside],
      ["another user's folder of that name", read("/home/bob/docs/a"), outside],
      ["a process's own view of the root", read("/proc/self/root/home/ann/docs/a"), isProtected],
      ["an open descriptor by its name", read("/proc/self/fd/3"), isProtected],
      ["no path at all", nothing("fs.read"), /states no path/],
      [
        "one path inside, one outside",
        { tool: "fs.move", accesses: [...read("/home/ann/docs/a").accesses, ...write("/tmp/a").accesses] },
        outside,
      ],
      [
        "two paths inside",
        { tool: "fs.move", accesses: [...write("/home/ann/docs/a").accesses, ...write("/home/ann/docs/b").accesses] },
        true,
      ],
      [
        "a command hidden in a tool for files",
        { tool: "fs.read", accesses: [...read("/home/ann/docs/a").accesses, command("sh")] },
        noCommand,
      ],
      [
        "a connection hidden in a tool for files",
        {
          tool: "fs.read",
          accesses: [...read("/home/ann/docs/a").accesses, { kind: "host", host: "example.org", port: 443 }],
        },
        /network/,
      ],
    ],
  },
  {
    title: "how folders may be written",
    context: context(
      '{tool_pattern: "fs.*", path_allowlist: [~/docs/, "/srv//data", "/opt/[a]{b}(c)", "~/src/*/doc", "~/pics/**/*.jpg", "/log/??.txt", "**/shared/**"]}',
    ),
    rows: [
      ["a tilde and a slash at the end", read("/home/ann/docs/a"), true],
      ["a tilde is the owner's home and no other", read("/root/docs/a"), outside],
      ["a doubled slash in the policy", read("/srv/data/a"), true],
      ["brackets and braces are letters", read("/opt/[a]{b}(c)/x"), true],
      ["brackets are no set of letters", read("/opt/ab(c)/x"), outside],
      ["a star is one name", path("fs.list", "/home/ann/src/aegis/doc"), true],
      ["a star grants nothing below what it matches", read("/home/ann/src/aegis/doc/x"), outside],
      ["a star is not two names", path("fs.list", "/home/ann/src/a/b/doc"), outside],
      ["a star is not no name", path("fs.list", "/home/ann/src/doc"), outside],
      ["a star matches a hidden name too", path("fs.list", "/home/ann/src/.git/doc"), true],
      ["two stars are no folder", read("/home/ann/pics/a.jpg"), true],
      ["two stars are many folders", read("/home/ann/pics/2026/01/a.jpg"), true],
      ["the end of the name still counts", read("/home/ann/pics/2026/a.jpg.sh"), outside],
      ["the middle of the name does not", read("/home/ann/pics/a.jpg/b.txt"), outside],
      ["question marks are one letter each", read("/log/ab.txt"), true],
      ["a question mark is one character, not one code unit", read("/log/a😀.txt"), true],
      ["three letters for two", read("/log/abc.txt"), outside],
      ["a question mark is no slash", read("/log/a/.txt"), outside],
      ["a name anywhere", read("/mnt/x/shared/a"), true],
      ["a name that ends like it", read("/mnt/x/unshared/a"), outside],
      ["traversal through two stars", read("/mnt/shared/../etc/passwd"), plain],
    ],
  },
  {
    title: "everything is granted, and still",
    context: everyPath,
    rows: [
      ["an ordinary file", read("/etc/hostname"), true],
      ["the state of the daemon", read("/home/ann/.aegis/edge/node.key"), isProtected],
      ["the state directory itself", path("fs.list", "/home/ann/.aegis/edge"), isProtected],
      ["the operator's profiles beside it", read("/home/ann/.aegis/credentials"), isProtected],
      ["all of ~/.aegis", path("fs.list", "/home/ann/.aegis"), isProtected],
      ["writing a new file there", write("/home/ann/.aegis/config.yaml"), isProtected],
      ["a state directory elsewhere", write("/srv/aegis-state/aegis-config.yaml"), isProtected],
      ["a sibling of that directory", write("/srv/aegis-state-backup"), true],
      ["the program itself", write("/usr/local/bin/aegis"), isProtected],
      ["reading the program, too", read("/usr/local/bin/aegis"), isProtected],
      ["another program beside it", write("/usr/local/bin/aegis2"), true],
      ["its unit", write("/home/ann/.config/systemd/user/aegis-edge.service"), isProtected],
      ["deleting the home directory, and the state with it", path("fs.delete", "/home/ann", "write"), isProtected],
      ["moving the folder of the program away", path("fs.move", "/usr/local/bin", "write"), isProtected],
      ["deleting the root", path("fs.delete", "/", "write"), isProtected],
      ["the daemon's own memory, because the tool runs in it", read("/proc/4711/mem"), isProtected],
      ["the daemon's environment", read("/proc/4711/environ"), isProtected],
      ["the memory of one of its threads", read("/proc/4711/task/4712/mem"), isProtected],
      ["itself, unresolved", read("/proc/self/mem"), isProtected],
      ["its thread, unresolved", read("/proc/thread-self/environ"), isProtected],
      ["a file through another process's root", read("/proc/1/root/home/ann/.aegis/edge/node.key"), isProtected],
      ["the memory of the kernel", read("/proc/kcore"), isProtected],
      ["what the kernel tells everybody", read("/proc/meminfo"), true],
      ["the disk below the file system", read("/dev/sda1"), isProtected],
      ["the memory of the machine", read("/dev/mem"), isProtected],
      ["shared memory, which is a folder", read("/dev/shm/x"), true],
      ["listing the home directory", path("fs.list", "/home/ann"), true],
      [
        "the state in capitals, for a file system that does not care",
        read("/home/ann/.AEGIS/edge/node.key"),
        isProtected,
      ],
      ["the state in wide letters", read("/home/ann/．aegis/edge/node.key"), isProtected],
      ["the state with a letter nobody sees", read("/home/ann/.ae\u200bgis/edge/node.key"), isProtected],
      ["SSH keys", read("/home/ann/.ssh/id_ed25519"), usual],
      ["the folder of SSH keys", path("fs.list", "/home/ann/.ssh"), usual],
      ["a new authorized_keys", write("/home/ann/.ssh/authorized_keys"), usual],
      ["SSH keys of root", read("/root/.ssh/id_rsa"), usual],
      ["SSH keys in a backup", read("/mnt/backup/home/ann/.ssh/id_rsa"), usual],
      ["SSH keys in capitals", read("/home/ann/.SSH/id_rsa"), usual],
      ["SSH keys with a long s", read("/home/ann/.ſsh/id_rsa"), usual],
      ["SSH keys with a zero-width joiner", read("/home/ann/.s\u200dsh/id_rsa"), usual],
      ["a folder that only begins like it", read("/home/ann/.sshd/config"), true],
      ["a file that only ends like it", read("/home/ann/my.ssh"), true],
      ["GnuPG", read("/home/ann/.gnupg/private-keys-v1.d/x.key"), usual],
      ["AWS", read("/home/ann/.aws/credentials"), usual],
      ["Azure", read("/home/ann/.azure/accessTokens.json"), usual],
      ["Kubernetes", read("/home/ann/.kube/config"), usual],
      ["Google Cloud", read("/home/ann/.config/gcloud/credentials.db"), usual],
      ["what else is in .config", read("/home/ann/.config/nvim/init.lua"), true],
      ["netrc", read("/home/ann/.netrc"), usual],
      ["git's stored passwords", read("/home/ann/.git-credentials"), usual],
      [".env of a project", read("/srv/app/.env"), usual],
      [".env with an ending", read("/srv/app/.env.production"), usual],
      [".envrc", read("/srv/app/.envrc"), usual],
      ["what lies in a folder named .env", read("/srv/app/.env/secrets"), usual],
      [".ENV", read("/srv/app/.ENV.local"), usual],
      [".env at the root", read("/.env"), usual],
      ["a file that has env in its name", read("/srv/app/environment.ts"), true],
      ["env without its dot", read("/srv/app/env"), true],
    ],
  },
  {
    title: "an owner's own path_denylist",
    context: context(
      '{tool_pattern: "fs.*", path_allowlist: [~/docs, /etc], path_denylist: [~/docs/private, ~/docs/straße, "*.key", .ssh, "/etc/*-", "~/docs/**/draft?"]}',
    ),
    rows: [
      ["what it does not name", read("/home/ann/docs/a"), true],
      ["a folder in it, against the folder that is allowed", read("/home/ann/docs/private/a"), /path_denylist holds/],
      ["that folder itself", path("fs.list", "/home/ann/docs/private"), /path_denylist holds/],
      ["that folder in another case", read("/home/ann/docs/Private/a"), /path_denylist holds/],
      ["a folder whose capitals are spelt otherwise", read("/home/ann/docs/STRASSE/a"), /path_denylist holds/],
      ["a sibling that begins like it", read("/home/ann/docs/private2/a"), true],
      ["a pattern without a slash, anywhere", read("/home/ann/docs/deep/down/tls.key"), /holds \*\.key/],
      ["a pattern also for what is below a folder of that name", read("/home/ann/docs/x.key/readme"), /holds \*\.key/],
      ["a name the pattern does not end with", read("/home/ann/docs/tls.key.pub"), true],
      ["one star within a folder", read("/etc/shadow-"), /path_denylist holds/],
      ["one star is not deeper", read("/etc/a/shadow-"), true],
      ["a question mark", read("/home/ann/docs/a/b/draft1"), /path_denylist holds/],
      ["an entry the owner left out is open", read("/home/ann/docs/.env"), true],
      ["an entry the owner kept is not", read("/home/ann/docs/.ssh/x"), /path_denylist holds/],
      ["what nobody can take out", read("/home/ann/.aegis/edge/node.key"), isProtected],
    ],
  },
  {
    title: "an empty path_denylist",
    context: context('{tool_pattern: "fs.*", path_allowlist: ["**"], path_denylist: []}'),
    rows: [
      ["opens what is usually denied", read("/home/ann/.ssh/config"), true],
      ["opens no state of the daemon", read("/home/ann/.aegis/edge/node.token"), isProtected],
      ["opens no program", write("/usr/local/bin/aegis"), isProtected],
      ["opens no state through a folder above it", path("fs.delete", "/srv", "write"), isProtected],
    ],
  },
  {
    title: "a path in a capability that grants none",
    context: context('{tool_pattern: "fs.*"}'),
    rows: [["no path_allowlist is no path", read("/srv/x"), outside]],
  },
  {
    title: "paths of Windows",
    context: context('{tool_pattern: "fs.*", path_allowlist: ["~/Docs", "D:/data", "C:\\\\Users\\\\Ann"]}'),
    world: windows,
    rows: [
      ["a tilde", read("C:\\Users\\Ann\\Docs\\a.txt"), true],
      ["another case, which is the same file", read("c:\\users\\ann\\docs\\a.txt"), true],
      ["slashes in the policy", read("D:\\data\\a.txt"), true],
      ["slashes in the path", read("D:/data/a.txt"), true],
      ["another drive", read("E:\\data\\a.txt"), outside],
      ["traversal", read("D:\\data\\..\\x"), plain],
      ["traversal with a slash", read("D:\\data/../x"), plain],
      ["a path of the current drive", read("\\data\\a.txt"), plain],
      ["a path relative to a drive", read("D:data\\a.txt"), plain],
      ["another machine", read("\\\\server\\share\\a.txt"), plain],
      ["a device path", read("\\\\?\\D:\\data\\a.txt"), plain],
      ["another stream of a file", read("D:\\data\\a.txt:secret"), plain],
      ["a dot at the end, which the system drops", read("D:\\data\\a.txt."), plain],
      ["a space at the end, which the system drops", read("D:\\data\\a.txt "), plain],
      ["the state", read("C:\\Users\\Ann\\.aegis\\edge\\node.key"), isProtected],
      ["the state in capitals", read("C:\\USERS\\ANN\\.AEGIS\\EDGE\\NODE.KEY"), isProtected],
      ["SSH keys", read("C:\\Users\\Ann\\.ssh\\id_rsa"), usual],
      ["Google Cloud", read("C:\\Users\\Ann\\.config\\gcloud\\x"), usual],
      ["a path of another system", read("/etc/passwd"), plain],
    ],
  },
  {
    title: "commands by bare name",
    context: context("{tool_pattern: cmd.run, command_allowlist: [git, uptime]}"),
    rows: [
      ["the name", run("uptime"), true],
      ["the name with arguments", run("git", ["status", "--short"]), true],
      ["the name where the host's PATH leads elsewhere", run("git", [], "/opt/git/bin/git"), true],
      ["another name", run("id"), noCommand],
      ["a name that begins like it", run("gitk"), noCommand],
      ["the beginning of the name", run("gi"), noCommand],
      ["another case", run("GIT"), noCommand],
      ["the same file by its path, which the name does not grant", run("/usr/bin/git", [], "/usr/bin/git"), noCommand],
      ["a file of that name elsewhere", run("/tmp/git", [], "/tmp/git"), noCommand],
      ["a file of that name in the working directory", run("./git", [], "/home/ann/git"), noCommand],
      ["a file of that name, by a relative path", run("tmp/git", [], "/tmp/git"), noCommand],
      ["a path out of an allowed folder", run("/usr/bin/../../tmp/git", [], "/tmp/git"), noCommand],
      ["a link of another name to it", run("g", [], "/usr/bin/git"), noCommand],
      ["arguments in the name", run("git status", [], "/usr/bin/git"), noCommand],
      ["a newline behind the name", run("git\n", [], "/usr/bin/git"), noCommand],
      ["a space behind the name", run("git ", [], "/usr/bin/git"), noCommand],
      ["a zero byte behind the name", run("git\0x", [], "/usr/bin/git"), noCommand],
      ["an empty name", run("", [], "/usr/bin/git"), noCommand],
      ["a tilde", run("~/git", [], "/home/ann/git"), noCommand],
      ["a star for a name", run("*", [], "/usr/bin/git"), noCommand],
      ["a name that is an option", run("--exec-path", [], "/usr/bin/git"), noCommand],
      ["an executable that was not resolved", run("git", [], "git"), /not resolved/],
      ["an executable with traversal left in it", run("git", [], "/usr/bin/../../tmp/git"), /not resolved/],
      ["an executable that is empty", run("git", [], ""), /not resolved/],
      ["a zero byte in an argument", run("git", ["status\0--x"]), /zero byte/],
      ["a newline in an argument is an argument", run("git", ["log\n; rm -rf ~"]), true],
      ["a shell's words in an argument are an argument", run("git", ["$(reboot)", "`x`", "&&", "|", ";"]), true],
      [
        "two commands in one call, one of them allowed",
        { tool: "cmd.run", accesses: [command("git"), command("id")] },
        noCommand,
      ],
      ["a line for a shell", shell("git status"), /run_as_shell is not set/],
      [
        "a working directory nobody granted",
        { tool: "cmd.run", accesses: [command("git"), ...read("/srv").accesses] },
        outside,
      ],
    ],
  },
  {
    title: "commands by resolved executable",
    context: context("{tool_pattern: cmd.run, command_allowlist: [/usr/bin/git, ~/bin/deploy]}"),
    rows: [
      ["its path", run("/usr/bin/git", [], "/usr/bin/git"), true],
      ["its bare name, where PATH leads there", run("git", [], "/usr/bin/git"), true],
      ["a link that leads there", run("/opt/g", [], "/usr/bin/git"), true],
      ["its bare name, where PATH leads elsewhere", run("git", [], "/opt/git"), noCommand],
      ["its path, where a link leads elsewhere", run("/usr/bin/git", [], "/tmp/evil"), noCommand],
      ["a path with a slash more", run("/usr/bin/git/", [], "/usr/bin/git/"), /not resolved/],
      ["a path below it", run("/usr/bin/git/x", [], "/usr/bin/git/x"), noCommand],
      ["another case", run("/usr/bin/GIT", [], "/usr/bin/GIT"), noCommand],
      ["a tilde in the policy", run("/home/ann/bin/deploy", [], "/home/ann/bin/deploy"), true],
      ["that path in another home", run("/home/bob/bin/deploy", [], "/home/bob/bin/deploy"), noCommand],
    ],
  },
  {
    title: "any command",
    context: context('{tool_pattern: cmd.run, command_allowlist: ["*"]}'),
    rows: [
      ["an ordinary one", run("make"), true],
      ["bash", run("bash", ["-c", "id"]), aShell],
      ["sh by its path", run("/bin/sh", [], "/bin/sh"), aShell],
      ["a shell behind a link of a harmless name", run("/tmp/ls", [], "/usr/bin/dash"), aShell],
      ["a link named sh to something else", run("sh", [], "/usr/bin/ls"), aShell],
      ["a shell with a version", run("/usr/bin/zsh-5.9", [], "/usr/bin/zsh-5.9"), aShell],
      ["a shell with a version and no hyphen", run("ksh93", [], "/usr/bin/ksh93"), aShell],
      ["the restricted bash", run("rbash", [], "/usr/bin/bash"), aShell],
      ["PowerShell", run("pwsh", [], "/opt/microsoft/powershell/7/pwsh"), aShell],
      ["cmd.exe in capitals", run("CMD.EXE", [], "/mnt/c/Windows/System32/CMD.EXE"), aShell],
      ["a login shell's name", run("-bash", [], "/usr/bin/bash"), aShell],
      ["busybox, which is a shell by its first argument", run("busybox", ["sh"], "/usr/bin/busybox"), aShell],
      ["a harmless applet of busybox", run("date", [], "/usr/bin/busybox"), true],
      ["the shell of busybox", run("ash", [], "/usr/bin/busybox"), aShell],
      ["the shell of busybox, as a login shell", run("-sh", [], "/usr/bin/busybox"), aShell],
      ["busybox behind a link of its own name", run("/tmp/busybox", ["sh"], "/usr/bin/busybox"), aShell],
      ["a program that has sh in its name", run("ssh"), true],
      ["a line for a shell", shell("id"), /run_as_shell is not set/],
      ["a variable nobody granted", env("LANG"), /env_allowlist does not hold/],
    ],
  },
  {
    title: "a shell with every command",
    context: context('{tool_pattern: cmd.run, command_allowlist: ["*"], run_as_shell: true}'),
    rows: [
      ["a line", shell("id; uptime"), true],
      ["bash", run("bash", ["-c", "id"]), true],
      [
        "a line and a variable nobody granted",
        {
          tool: "cmd.run",
          accesses: [
            { kind: "shell", line: "id" },
            { kind: "env", name: "X" },
          ],
        },
        /env_allowlist/,
      ],
      [
        "a line in a folder nobody granted",
        { tool: "cmd.run", accesses: [{ kind: "shell", line: "id" }, ...read("/srv").accesses] },
        outside,
      ],
    ],
  },
  {
    title: "a shell where commands are listed",
    context: context("{tool_pattern: cmd.run, command_allowlist: [git, bash], run_as_shell: true}"),
    rows: [
      [
        "a line could run any command, so it is none of the listed ones",
        shell("git status; id"),
        /a shell can run anything/,
      ],
      ["a listed shell is the owner's choice", run("bash", ["-c", "id"]), true],
      ["a shell that is not listed", run("zsh", ["-c", "id"]), noCommand],
    ],
  },
  {
    title: "a shell where arguments are ruled",
    context: context(
      '{tool_pattern: cmd.run, command_allowlist: ["*"], args_denylist: ["--force"], run_as_shell: true}',
    ),
    rows: [
      ["a line could pass any argument", shell("git push --force"), /a shell can run anything/],
      ["the argument itself", run("git", ["push", "--force"]), deniedArgument],
    ],
  },
  {
    title: "args_denylist",
    context: context(
      '{tool_pattern: cmd.run, command_allowlist: ["*"], args_denylist: ["-s", "--upload-pack", "-exec", "/etc/shadow", "*..*", "@*", of]}',
    ),
    rows: [
      ["other arguments", run("git", ["-v", "--tags", "main"]), true],
      ["the short option", run("date", ["-s", "2030-01-01"]), deniedArgument],
      ["the short option with its value", run("date", ["-s2030-01-01"]), deniedArgument],
      ["the short option with = and its value", run("date", ["-s=2030-01-01"]), deniedArgument],
      ["the short option inside a bundle", run("date", ["-us", "2030-01-01"]), deniedArgument],
      ["the short option behind the end of options", run("date", ["--", "-s"]), deniedArgument],
      ["the letter in a long option is another option", run("git", ["--stat"]), true],
      ["the letter without its hyphen", run("git", ["s"]), true],
      ["a single hyphen", run("cat", ["-"]), true],
      ["the long option", run("git", ["--upload-pack", "x"]), deniedArgument],
      ["the long option with its value", run("git", ["--upload-pack=touch /tmp/x"]), deniedArgument],
      ["the long option with an empty value", run("git", ["--upload-pack="]), deniedArgument],
      ["the long option shortened", run("git", ["--upload-p", "x"]), deniedArgument],
      ["the long option shortened to one letter, with a value", run("git", ["--u=x"]), deniedArgument],
      ["the long option with one hyphen", run("go", ["-upload-pack=x"]), deniedArgument],
      ["the long option in the middle", run("git", ["fetch", "--upload-pack=x", "origin"]), deniedArgument],
      ["a longer option that begins like it", run("git", ["--upload-packs"]), true],
      ["the end of options is no shortened option", run("git", ["--", "main"]), true],
      ["a long option with one hyphen", run("find", [".", "-exec", "id"]), deniedArgument],
      ["a long option with one hyphen, given two", run("find", ["--exec=id"]), deniedArgument],
      ["the word without hyphens", run("docker", ["exec"]), true],
      ["a value", run("cat", ["/etc/shadow"]), deniedArgument],
      ["a value smuggled behind =", run("grep", ["--file=/etc/shadow"]), deniedArgument],
      ["a value smuggled behind a short option and =", run("grep", ["-f=/etc/shadow"]), deniedArgument],
      ["a longer value", run("cat", ["/etc/shadow.txt"]), true],
      ["a pattern in the middle", run("cat", ["a/../../b"]), deniedArgument],
      ["a pattern behind =", run("cc", ["-o=../x"]), deniedArgument],
      ["a pattern across a newline", run("cat", ["a\n..\nb"]), deniedArgument],
      ["a response file", run("cc", ["@args"]), deniedArgument],
      ["a response file behind =", run("cc", ["--args=@args"]), deniedArgument],
      ["a word in front of =, as dd has them", run("dd", ["of=/dev/sda"]), deniedArgument],
      ["a word that only begins like it", run("dd", ["offset=1"]), true],
      ["an at sign inside", run("ssh", ["ann@host"]), true],
      ["an empty argument", run("echo", [""]), true],
    ],
  },
  {
    title: "args_allowlist",
    context: context(
      '{tool_pattern: cmd.run, command_allowlist: [journalctl], args_allowlist: ["--unit=web*", "-n", "[0-9]", "50"]}',
    ),
    rows: [
      ["no argument", run("journalctl"), true],
      ["a listed argument, twice", run("journalctl", ["-n", "50", "-n"]), true],
      ["a pattern", run("journalctl", ["--unit=web-1"]), true],
      ["an argument that is not listed", run("journalctl", ["--file=/x"]), noArgument],
      ["an argument that is not listed, behind one that is", run("journalctl", ["-n", "--vacuum-size=1"]), noArgument],
      ["a listed argument with more behind it", run("journalctl", ["-n50"]), noArgument],
      ["a listed argument with a newline", run("journalctl", ["-n\n"]), noArgument],
      ["a listed argument with a space", run("journalctl", [" -n"]), noArgument],
      ["two arguments in one", run("journalctl", ["-n 50"]), noArgument],
      ["an empty argument", run("journalctl", [""]), noArgument],
      ["another case", run("journalctl", ["-N"]), noArgument],
      ["a pattern that does not begin so", run("journalctl", ["x--unit=web"]), noArgument],
      ["brackets are letters, no set of digits", run("journalctl", ["5"]), noArgument],
      ["the end of options", run("journalctl", ["--"]), noArgument],
    ],
  },
  {
    title: "subcommand_allowlist",
    context: context(
      '{tool_pattern: cmd.run, command_allowlist: [git, whoami, uptime, systemctl, python3, /usr/local/bin/kubectl], subcommand_allowlist: {git: [status, "remote show"], whoami: [], systemctl: [status], kubectl: [get], python: [-V]}}',
    ),
    rows: [
      ["a listed word", run("git", ["status", "--short"]), true],
      ["two listed words", run("git", ["remote", "show", "origin"]), true],
      ["the first of two listed words", run("git", ["remote"]), noSubcommand],
      ["two listed words in one argument", run("git", ["remote show"]), noSubcommand],
      ["another word behind the first", run("git", ["remote", "add", "show"]), noSubcommand],
      ["a word that is not listed", run("git", ["push"]), noSubcommand],
      ["an option in front of the word", run("git", ["-c", "core.pager=touch x", "status"]), noSubcommand],
      ["no word", run("git"), noSubcommand],
      ["an empty word", run("git", ["", "status"]), noSubcommand],
      ["another case", run("git", ["Status"]), noSubcommand],
      ["a word with more letters", run("git", ["statusx"]), noSubcommand],
      ["an empty list: no argument", run("whoami"), true],
      ["an empty list: one argument", run("whoami", ["--help"]), noSubcommand],
      ["a rule by bare name holds for a version", run("python3", ["-c", "x"], "/usr/bin/python3.11"), noSubcommand],
      ["a command the map does not name", run("uptime", ["-p"]), true],
      [
        "a rule by bare name holds for the path",
        run("/usr/local/bin/kubectl", ["delete", "x"], "/usr/local/bin/kubectl"),
        noSubcommand,
      ],
      [
        "and lets the path do what is listed",
        run("/usr/local/bin/kubectl", ["get", "x"], "/usr/local/bin/kubectl"),
        true,
      ],
      [
        "a rule by bare name holds for a link of another name",
        run("k", ["delete"], "/usr/local/bin/kubectl"),
        noSubcommand,
      ],
    ],
  },
  {
    title: "env_allowlist",
    context: context(
      '{tool_pattern: cmd.run, command_allowlist: [make], env_allowlist: [LANG, "APP_*", PATH, "LD_*", GIT_DIR, "NODE_*"]}',
    ),
    rows: [
      ["a listed variable", env("LANG"), true],
      ["a variable of a pattern", env("APP_MODE"), true],
      ["a variable that is not listed", env("HOME"), /env_allowlist does not hold/],
      ["one listed and one not", env("LANG", "TZ"), /env_allowlist does not hold/],
      ["a longer name", env("LANGUAGE"), /env_allowlist does not hold/],
      ["another case", env("lang"), /env_allowlist does not hold/],
      ["a pattern does not match its middle", env("MY_APP_MODE"), /env_allowlist does not hold/],
      ["PATH, whatever is listed", env("PATH"), /whatever env_allowlist says/],
      ["path, which Windows takes for PATH", env("path"), /whatever env_allowlist says/],
      ["LD_PRELOAD, whatever is listed", env("LD_PRELOAD"), /whatever env_allowlist says/],
      ["LD_LIBRARY_PATH", env("LD_LIBRARY_PATH"), /whatever env_allowlist says/],
      ["DYLD_INSERT_LIBRARIES", env("DYLD_INSERT_LIBRARIES"), /whatever env_allowlist says/],
      ["NODE_OPTIONS", env("NODE_OPTIONS"), /whatever env_allowlist says/],
      ["BUN_INSPECT", env("BUN_INSPECT"), /whatever env_allowlist says/],
      ["GIT_DIR", env("GIT_DIR"), /whatever env_allowlist says/],
      ["GIT_SSH_COMMAND", env("GIT_SSH_COMMAND"), /whatever env_allowlist says/],
      ["an equals sign in a name, which would set another", env("LANG=x\0PATH"), /no name of a variable/],
      ["a newline in a name", env("LANG\nPATH"), /no name of a variable/],
      ["an exported function of bash", env("BASH_FUNC_ls%%"), /no name of a variable/],
      ["an empty name", env(""), /no name of a variable/],
    ],
  },
  {
    title: "env_allowlist of everything",
    context: context('{tool_pattern: cmd.run, command_allowlist: [make], env_allowlist: ["*"]}'),
    rows: [
      ["an ordinary variable", env("TZ"), true],
      ["LD_AUDIT", env("LD_AUDIT"), /whatever env_allowlist says/],
      ["BASH_ENV", env("BASH_ENV"), /whatever env_allowlist says/],
      ["ENV", env("ENV"), /whatever env_allowlist says/],
      ["IFS", env("IFS"), /whatever env_allowlist says/],
      ["GCONV_PATH", env("GCONV_PATH"), /whatever env_allowlist says/],
      ["GLIBC_TUNABLES", env("GLIBC_TUNABLES"), /whatever env_allowlist says/],
      ["this program's own variables", env("AEGIS_USER_TOKEN"), /whatever env_allowlist says/],
      ["a name that only ends like one", env("MY_PATH"), true],
    ],
  },
  {
    title: "the first capability that accepts",
    context: context(
      '{tool_pattern: "fs.*", path_allowlist: [/a]}, {tool_pattern: fs.read, path_allowlist: [/b]}, {tool_pattern: cmd.run, command_allowlist: [make]}, {tool_pattern: cmd.run, path_allowlist: [/b]}',
    ),
    rows: [
      ["the first", read("/a/x"), true],
      ["the second, when the first refuses", read("/b/x"), true],
      ["the second is for another tool", write("/b/x"), outside],
      [
        "one path from each is accepted by neither",
        { tool: "fs.read", accesses: [...read("/a/x").accesses, ...read("/b/x").accesses] },
        outside,
      ],
      [
        "command from one, folder from the other",
        { tool: "cmd.run", accesses: [command("make"), ...read("/b").accesses] },
        outside,
      ],
    ],
  },
  {
    title: "the context written at enrollment",
    context: written(defaultContext({ folders: ["/home/ann/docs"] })),
    rows: [
      ["looking at the host", nothing("host.info"), true],
      ["a service's state", nothing("service.status"), true],
      ["restarting a service", nothing("service.restart"), noTool],
      ["reading in the chosen folder", read("/home/ann/docs/a"), true],
      ["listing it", path("fs.list", "/home/ann/docs"), true],
      ["searching it", path("fs.grep", "/home/ann/docs"), true],
      ["reading elsewhere", read("/home/ann/a"), outside],
      ["a password file in the chosen folder", read("/home/ann/docs/app/.env"), usual],
      ["writing in the chosen folder", write("/home/ann/docs/a"), noTool],
      ["deleting in the chosen folder", path("fs.delete", "/home/ann/docs/a", "write"), noTool],
      ["rotating the key", nothing("aegis.keys.rotate"), noTool],
      ["updating the program", nothing("aegis.update"), noTool],
      ["an MCP server's tool", nothing("mcp.x.y"), noTool],
      ["another caller's job", nothing("job.output"), noTool],
      ["a shell", run("bash", ["-c", "id"]), noCommand],
      ["a line for a shell", shell("uname"), /run_as_shell is not set/],
      ["a variable", { tool: "cmd.run", accesses: [command("date"), { kind: "env", name: "TZ" }] }, /env_allowlist/],
      [
        "a working directory",
        { tool: "cmd.run", accesses: [command("df"), ...read("/home/ann/docs").accesses] },
        outside,
      ],
      ["uname -a", run("uname", ["-a"]), true],
      ["date of another program", run("/tmp/date", [], "/tmp/date"), noCommand],
      ["date", run("date"), true],
      ["date -u +%s", run("date", ["-u", "+%s"]), true],
      ["date sets the clock: -s", run("date", ["-s", "2030-01-01"]), noArgument],
      ["date sets the clock: -us", run("date", ["-us", "2030-01-01"]), noArgument],
      ["date sets the clock: --set=", run("date", ["--set=2030-01-01"]), noArgument],
      ["date sets the clock: --se", run("date", ["--se", "2030-01-01"]), noArgument],
      ["date sets the clock: as POSIX says", run("date", ["010112002030"]), noArgument],
      ["date sets the clock: -s alone", run("date", ["-s"]), noArgument],
      ["date reads a file: -f alone", run("date", ["-f"]), noArgument],
      ["date reads a file's time: -r alone", run("date", ["-r"]), noArgument],
      ["date reads a file: -f", run("date", ["-f", "/etc/shadow"]), noArgument],
      ["date reads a file: -f with its value", run("date", ["-f/etc/shadow"]), noArgument],
      ["date reads a file: --file=", run("date", ["--file=/etc/shadow"]), noArgument],
      ["date reads a file's time: -r", run("date", ["-r", "/etc/shadow"]), noArgument],
      ["date reads a file's time: --ref", run("date", ["--ref=/etc/shadow"]), noArgument],
      ["date prints a gigabyte of zeros", run("date", ["+%1000000000d"]), noArgument],
      ["hostname", run("hostname"), true],
      ["hostname -f", run("hostname", ["-f"]), true],
      ["hostname sets the name", run("hostname", ["evil"]), noArgument],
      ["hostname sets the name behind the end of options", run("hostname", ["--", "evil"]), noArgument],
      ["hostname sets the name from a file: -F", run("hostname", ["-F", "/etc/shadow"]), noArgument],
      ["hostname sets the name from a file: -bF", run("hostname", ["-bF/etc/shadow"]), noArgument],
      ["hostname sets the name from a file: --file", run("hostname", ["--file=/etc/shadow"]), noArgument],
      ["hostname sets the NIS domain: -y", run("hostname", ["-y", "evil"]), noArgument],
      ["df of all", run("df", ["-h"]), true],
      ["df of a path, which tells whether it exists", run("df", ["/home/ann/.ssh/id_rsa"]), noArgument],
      ["df writes back every cache: --sync", run("df", ["--sync"]), noArgument],
      ["free for ever: -s", run("free", ["-s", "1"]), noArgument],
      ["free for ever: --seconds", run("free", ["--seconds=1"]), noArgument],
      ["id of another user", run("id", ["root"]), noArgument],
      ["whoami", run("whoami"), true],
      ["whoami with anything", run("whoami", ["--version"]), noArgument],
      ["uptime -p", run("uptime", ["-p"]), true],
      ["a command that could run others: env", run("env", ["id"]), noCommand],
      ["a command that could run others: find", run("find", ["/", "-exec", "id", ";"]), noCommand],
      ["a command that could read files: cat", run("cat", ["/etc/passwd"]), noCommand],
    ],
  },
  {
    title: "the context written at enrollment, on a host of busybox",
    context: written(defaultContext({ folders: [] })),
    rows: [
      ["date", run("date", ["-u"], "/bin/busybox"), true],
      ["another applet by its first argument", run("busybox", ["sh"], "/bin/busybox"), noCommand],
      ["an applet's name in the arguments of another", run("date", ["sh"], "/bin/busybox"), noArgument],
      ["no folder chosen, nothing to read", read("/home/ann/docs/a"), noTool],
    ],
  },
  {
    title: "the operator context",
    context: written(operatorContext()),
    rows: [
      ["any command", run("reboot"), true],
      ["any line", shell("reboot"), true],
      ["any file", write("/etc/motd"), true],
      ["any tool", nothing("mcp.git.push"), true],
      [
        "any folder for a command",
        { tool: "cmd.run", accesses: [command("make"), ...read("/srv/app").accesses] },
        true,
      ],
      ["the daemon's key all the same", read("/home/ann/.aegis/edge/node.key"), isProtected],
      [
        "the daemon's state as a folder for a command",
        { tool: "cmd.run", accesses: [command("ls"), ...read("/home/ann/.aegis").accesses] },
        isProtected,
      ],
      ["SSH keys all the same", read("/home/ann/.ssh/id_rsa"), usual],
      ["LD_PRELOAD all the same", env("LD_PRELOAD"), /whatever env_allowlist says/],
      ["a relative path all the same", read("etc/motd"), plain],
      [
        "a connection of a tool",
        { tool: "mcp.x.y", accesses: [{ kind: "host", host: "example.org", port: 443 }] },
        /network/,
      ],
    ],
  },
  {
    title: "misspelt restrictions do not widen",
    context: context(
      '{tool_pattern: fs.read, path_allowlist: ["**"], path_denylst: [/etc]}, {tool_pattern: cmd.run, command_allowlist: ["*"], rate_limit: {calls: 1, per_seconds: 1, per_minute: 1}}, {tool_pattern: host.info, domain_allowlist: [example.org]}',
    ),
    rows: [
      ["a capability with a misspelt denial accepts nothing", read("/srv/x"), /path_denylst is unknown/],
      ["nor one with a limit that has another key", run("make"), /rate_limit\.per_minute is unknown/],
      ["the peer's domain_allowlist is known", nothing("host.info"), true],
    ],
  },
  {
    title: "a misspelt deny_list",
    context: context('{tool_pattern: "*"}', "denylist: [host.info],"),
    rows: [["closes the whole context", nothing("host.info"), /denylist is unknown/]],
  },
];

for (const { title, context, rows, ...table } of tables) {
  describe(title, () => {
    for (const [name, call, expected] of rows)
      test(name, () => {
        const verdict = evaluate(context, { ...call, caller: table.caller ?? ann }, table.world ?? world);
        if (expected === true) expect(verdict).toMatchObject({ kind: "allowed" });
        else
          expect(verdict).toEqual({
            kind: "denied",
            rule: expect.any(String),
            reason: expect.stringMatching(expected),
          });
      });
  });
}

describe("principals", () => {
  const open = (principals: string) =>
    contexts(`- {name: t, principals: ${principals}, capabilities: [{tool_pattern: host.info}]}`)[0] as SecurityContext;
  const someone = (sub: string, ...scopes: string[]) => ({ sub, scopes });
  const rows: readonly [name: string, principals: string, caller: CallToJudge["caller"], admitted: boolean][] = [
    ["everybody", '[{sub: "*"}]', someone("ann"), true],
    ["nobody, where nobody is named", "[]", someone("ann"), false],
    ["the one who is named", "[{sub: ann}]", someone("ann"), true],
    ["somebody else", "[{sub: ann}]", someone("bob"), false],
    ["another case", "[{sub: ann}]", someone("Ann"), false],
    ["a longer name", "[{sub: ann}]", someone("ann2"), false],
    ["a name with a space", "[{sub: ann}]", someone("ann "), false],
    ["a look-alike letter", "[{sub: ann}]", someone("аnn"), false],
    ["a caller who is called *", "[{sub: ann}]", someone("*"), false],
    ["a star inside a name is a letter", '[{sub: "a*"}]', someone("ann"), false],
    ["one of two who are named", "[{sub: bob}, {sub: ann}]", someone("ann"), true],
    ["a scope", "[{scope: ops}]", someone("ann", "x", "ops"), true],
    ["no scope", "[{scope: ops}]", someone("ann"), false],
    ["a longer scope", "[{scope: ops}]", someone("ann", "ops.read"), false],
    ["the name is no scope", "[{scope: ops}]", someone("ops"), false],
    ["a star is no scope", '[{scope: "*"}]', someone("ann", "ops"), false],
    ["name and scope", "[{sub: ann, scope: ops}]", someone("ann", "ops"), true],
    ["the name without its scope", "[{sub: ann, scope: ops}]", someone("ann"), false],
    ["the scope without its name", "[{sub: ann, scope: ops}]", someone("bob", "ops"), false],
    ["everybody who has a scope", '[{sub: "*", scope: ops}]', someone("bob", "ops"), true],
    ["everybody who has a scope, without it", '[{sub: "*", scope: ops}]', someone("bob"), false],
    ["name of one, scope of another", "[{sub: ann, scope: ops}, {sub: bob, scope: dev}]", someone("ann", "dev"), false],
    ["a misspelt scope does not widen", "[{sub: ann, scpoe: ops}]", someone("ann"), false],
  ];
  for (const [name, principals, caller, admitted] of rows)
    test(name, () => {
      const verdict = evaluate(open(principals), { ...nothing("host.info"), caller }, world);
      expect(verdict).toMatchObject(
        admitted
          ? { kind: "allowed" }
          : { kind: "denied", rule: "t.principals", reason: expect.stringContaining("none of its principals") },
      );
    });

  test("a principal of nothing at all is refused at load", () => {
    expect(() => open("[{}]")).toThrow(/sub or scope/);
  });
});

test("the table has at least 200 rows, none twice", () => {
  const names = tables.flatMap(({ title, rows }) => rows.map(([name]) => `${title}: ${name}`));
  expect(names.length).toBeGreaterThanOrEqual(200);
  expect(new Set(names).size).toBe(names.length);
});
