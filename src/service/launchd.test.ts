import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import { launchctl, plist, plistPath, readStatus } from "./launchd.ts";

const spec = {
  executable: "/usr/local/bin/aegis",
  configPath: "/Users/ann/.aegis/edge/aegis-config.yaml",
  stateDir: "/Users/ann/.aegis/edge",
  env: {},
};

describe("the agent", () => {
  needs("command:python3")("is a property list that says what the daemon needs", () => {
    const folder = mkdtempSync(join(tmpdir(), "aegis-plist-"));
    try {
      const odd = {
        ...spec,
        executable: '/Applications/A & B <x> "y"/aegis é',
        env: { HTTPS_PROXY: "http://u:p&q@proxy:3128" },
      };
      for (const one of [spec, odd]) {
        const path = join(folder, "agent.plist");
        writeFileSync(path, plist(one));
        const script = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
        const run = Bun.spawnSync(["python3", "-c", script, path]);
        expect(run.stderr.toString()).toBe("");
        expect(JSON.parse(run.stdout.toString())).toEqual({
          Label: "io.aegis.edge",
          ProgramArguments: [one.executable, "edge", "run", "--config", one.configPath],
          RunAtLoad: true,
          KeepAlive: { SuccessfulExit: false, NetworkState: true },
          ExitTimeOut: 30,
          ThrottleInterval: 10,
          Umask: 63,
          ...(Object.keys(one.env).length > 0 ? { EnvironmentVariables: one.env } : {}),
          StandardOutPath: "/Users/ann/.aegis/edge/logs/aegis-edge.out.log",
          StandardErrorPath: "/Users/ann/.aegis/edge/logs/aegis-edge.err.log",
        });
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("lies where launchd looks, and is started by the newer verb first", () => {
    expect(plistPath("/Users/ann")).toBe("/Users/ann/Library/LaunchAgents/io.aegis.edge.plist");
    expect(launchctl.start(501, "/p")).toEqual([
      ["bootstrap", "gui/501", "/p"],
      ["load", "-w", "/p"],
    ]);
    expect(launchctl.restart(501)).toEqual([["kickstart", "-k", "gui/501/io.aegis.edge"]]);
  });
});

test("what launchctl says is running, stopped with its last status, or not loaded", () => {
  const listed = '{\n\t"LimitLoadToSessionType" = "Aqua";\n\t"Label" = "io.aegis.edge";\n\t"LastExitStatus" = 19968;\n';
  expect(readStatus(0, `${listed}\t"PID" = 4711;\n};`)).toEqual({ kind: "running", pid: 4711 });
  expect(readStatus(0, `${listed}};`)).toEqual({ kind: "stopped", lastExit: 19_968 });
  expect(readStatus(113, 'Could not find service "io.aegis.edge"')).toEqual({ kind: "not_loaded" });
});
