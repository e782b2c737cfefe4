/** What the daemon tells whoever keeps it running: by itself, and through systemd-notify where the executable lacks the part for it. */
import { afterAll, expect } from "bun:test";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, hardening, stampedConstants } from "../install/build.ts";
import { releaseKey } from "../install/release-key.ts";
import { eventually } from "./support/aegis.ts";
import { type Installation, installation } from "./support/installation.ts";
import { needs } from "./support/needs.ts";
import { type SystemdBench, systemdBench } from "./support/systemd-bench.ts";

const root = join(import.meta.dir, "..");
const scratch = mkdtempSync(join(tmpdir(), "aegis-notify-"));
let site: Installation | undefined;
let bench: SystemdBench | undefined;
afterAll(async () => {
  bench?.down();
  await site?.close();
  rmSync(scratch, { recursive: true });
});

needs("linux", "command:python3", "command:cc")(
  "says READY once, how the connection is, RELOADING until it has, STOPPING, and feeds the watchdog, always as its main process",
  async () => {
    const socket = join(scratch, "socket");
    const script = join(import.meta.dir, "support/notify-socket.py");
    const listener = Bun.spawn(["python3", script, socket, "100000"], { stdout: "pipe", stderr: "ignore" });
    const heard: [message: string, pid: number][] = [];
    const reading = (async () => {
      let text = "";
      for await (const chunk of listener.stdout.pipeThrough(new TextDecoderStream())) {
        const lines = (text + chunk).split("\n");
        text = lines.pop() ?? "";
        for (const line of lines) if (line.startsWith("[")) heard.push(JSON.parse(line));
      }
    })();
    try {
      site = await installation();
      await eventually("it listens", () => statSync(socket, { throwIfNoEntry: false })?.isSocket() ?? false);
      const host = await site.addHost("told", { env: { NOTIFY_SOCKET: socket, WATCHDOG_USEC: "200000" } });
      const words = () => heard.map(([message]) => message).filter((message) => message !== "WATCHDOG=1");
      const begun = ["READY=1\nSTATUS=connecting to the controller", "STATUS=connected"];
      await eventually("connected was told", () => words().includes("STATUS=connected"));
      const fed = () => heard.filter(([message]) => message === "WATCHDOG=1").length;
      const before = fed();
      await eventually("the watchdog is fed", () => fed() > before + 2);
      host.daemon?.signal("SIGHUP");
      await eventually("reloaded was told", () => words().includes("READY=1"));
      expect(await host.daemon?.stop()).toBe(0);
      await eventually("stopping was told", () => words().some((message) => message.startsWith("STOPPING=1")));
      expect(words().filter((message) => !/^STATUS=(?:connecting|stopped)/.test(message))).toEqual([
        ...begun,
        ...["RELOADING=1", "READY=1"],
        "STOPPING=1\nSTATUS=finishing the calls that run",
      ]);
      expect(new Set(heard.map(([, pid]) => pid))).toEqual(new Set([host.daemon?.pid ?? 0]));
    } finally {
      listener.kill();
      await reading;
    }
  },
  30_000,
);

const requirements = ["root", "linux", "file:/lib/systemd/systemd", "command:dbus-daemon"] as const;
needs(...requirements)(
  "an executable without native parts is installed with NotifyAccess=all, which is said, and is ready, fed and reloaded all the same",
  async () => {
    const plain = join(scratch, "aegis");
    const bunTarget = `bun-linux-${process.arch}` as const;
    const define = stampedConstants(`linux-${process.arch}`, releaseKey(process.env).publicPem);
    compile({ entry: join(root, "src/main.ts"), outfile: plain, bunTarget, define, hardening });
    bench = await systemdBench({
      executable: plain,
      ...(process.env.AEGIS_SYSTEMD_ROOT ? { rootFolder: process.env.AEGIS_SYSTEMD_ROOT } : {}),
    });
    const drop = "~/.config/systemd/user/aegis-edge.service.d";
    await bench.user(`mkdir -p ${drop}; printf '[Service]\\nWatchdogSec=2\\n' > ${drop}/90-mine.conf`);
    const enrolled = await bench.user(`aegis edge enroll ${await bench.token("plain")} --non-interactive`);
    expect(enrolled.said).toContain("through systemd-notify (NotifyAccess=all)");
    expect(enrolled.said).toContain("the service systemd keeps it running; it is connected");
    const show = async (...names: string[]) =>
      (await bench?.user(names.map((name) => `systemctl --user show aegis-edge -P ${name}`).join("; ")))?.said;
    expect(await show("NotifyAccess", "StatusText")).toBe("all\nconnected\n");
    const reloaded = await bench.user("systemctl --user reload aegis-edge; sleep 5");
    expect(reloaded.exit).toBe(0);
    expect(await show("ActiveState", "NRestarts", "StatusText")).toBe("active\n0\nconnected\n");
    expect((await bench.user("aegis edge status")).said).toMatch(
      /^identity +readable by tools; there are no native parts/m,
    );
  },
  60_000,
);
