/** Networks that lose, delay, choke and cut off. Host and controller are in different namespaces of the kernel. */

import type { Requirement } from "../support/needs.ts";
import { type NetworkLab, networkLab } from "../support/network-lab.ts";
import { type Blow, type Fault, type FaultReport, holds, struck } from "./fault.ts";

const needs: Requirement[] = ["root", "linux", "command:ip", "command:nft"];

async function inLab(act: (lab: NetworkLab) => Promise<FaultReport>): Promise<FaultReport> {
  const lab = networkLab();
  try {
    return await act(lab);
  } finally {
    lab.destroy();
  }
}

const overLab = (blow: (lab: NetworkLab) => Blow, first?: (lab: NetworkLab) => Promise<void>): Promise<FaultReport> =>
  inLab(async (lab) => {
    lab.forward(true);
    await first?.(lab);
    return await struck(
      { site: { host: lab.world, start: ["--insecure-http"] }, host: { before: lab.in("host") } },
      blow(lab),
    );
  });

/** Words that a proxy in the middle is started with. */
async function proxyIn(lab: NetworkLab, port: number): Promise<Bun.Subprocess> {
  const config = `Port ${port}\nListen ${lab.middle}\nTimeout 600\nMaxClients 20\nLogLevel Error\n`;
  const file = `/tmp/aegis-lab-${port}-${process.pid}.conf`;
  await Bun.write(file, config);
  const child = Bun.spawn([...lab.in("middle"), "tinyproxy", "-d", "-c", file], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  });
  for (let attempt = 0; attempt < 200; attempt++) {
    const probe = Bun.spawnSync([...lab.in("middle"), "sh", "-c", `ss -Hltn 'sport = :${port}' | grep -q .`]);
    if (probe.exitCode === 0) return child;
    await Bun.sleep(20);
  }
  throw new Error("the proxy did not start");
}

export const networkFaults: Fault[] = [
  {
    ...{ name: "half-open TCP: every packet dropped without a word, 40 s", needs, smoke: false },
    run: () =>
      overLab((lab) => ({
        long: "sleep 2",
        strike: () => lab.lose(1),
        lastsMs: 40_000,
        heal: () => lab.lose(0),
      })),
  },
  {
    ...{ name: "a dead path for 5 s", needs, smoke: true },
    run: () =>
      overLab((lab) => ({
        noticed: false,
        strike: () => lab.lose(1),
        lastsMs: 5_000,
        heal: () => lab.lose(0),
      })),
  },
  lossy(10, false),
  lossy(2, true),
  narrow(8, false),
  narrow(2, true),
  {
    ...{ name: "the only way out is a proxy, and it dies", needs: [...needs, "command:tinyproxy"], smoke: true },
    run: () =>
      inLab(async (lab) => {
        const port = 3128;
        let proxy = await proxyIn(lab, port);
        const env = { HTTPS_PROXY: `http://${lab.middle}:${port}` };
        const seen = new Set<string>();
        const look = setInterval(() => {
          for (const one of lab.connections()) seen.add(one);
        }, 50);
        try {
          const report = await struck(
            { site: { host: lab.world, start: ["--insecure-http"] }, host: { before: lab.in("host"), env } },
            {
              strike: async () => {
                proxy.kill("SIGKILL");
                await proxy.exited;
                // From now on there would be a direct way: it must not be taken.
                lab.forward(true);
              },
              lastsMs: 4_000,
              heal: async () => {
                lab.forward(false);
                proxy = await proxyIn(lab, port);
              },
            },
          );
          holds(
            [...seen].every((one) => one === `${lab.middle}:${port}`),
            `only the proxy was dialled: ${[...seen]}`,
          );
          return { ...report, note: "nothing but the proxy was dialled" };
        } finally {
          clearInterval(look);
          proxy.kill("SIGKILL");
        }
      }),
  },
];

function lossy(seconds: number, smoke: boolean): Fault {
  return {
    ...{ name: `2 % loss and 80 ms each way, ${seconds} s`, smoke },
    needs: [...needs, "command:python3", "file:/dev/net/tun"],
    run: () =>
      overLab(
        (lab) => ({
          noticed: false,
          long: `seq ${seconds * 20_000}`,
          strike: () => lab.lose(0.02),
          lastsMs: seconds * 1_000,
          check: () => "no session ended",
        }),
        (lab) => lab.delay(80),
      ),
  };
}

function narrow(seconds: number, smoke: boolean): Fault {
  return {
    ...{ name: `32 KB/s towards the host, ${seconds} s`, needs: [...needs, "command:tc"], smoke },
    run: () =>
      overLab((lab) => ({
        noticed: false,
        long: `seq ${seconds * 12_500}`,
        strike: () => lab.limit(32_000),
        lastsMs: seconds * 1_000,
        heal: () => lab.limit(0),
      })),
  };
}
