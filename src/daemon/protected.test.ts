import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EdgeConfig } from "../config/edge.ts";
import { protectedPaths } from "./protected.ts";

let base: string;
beforeEach(() => {
  base = realpathSync(mkdtempSync(join(tmpdir(), "aegis-protected-")));
  mkdirSync(join(base, "disk", "edge"), { recursive: true });
  symlinkSync(join(base, "disk"), join(base, ".aegis"));
});
afterEach(() => rmSync(base, { recursive: true }));

test("the identity is protected under every path that leads to it, the program and its unit against change", async () => {
  const stateDir = join(base, ".aegis", "edge");
  const config = {
    stateDir,
    configPath: join(base, "etc", "edge.yaml"),
    keyPath: join(stateDir, "node.key"),
    tokenPath: join(base, "tokens", "node.token"),
  } as EdgeConfig;
  const { closed, readOnly } = await protectedPaths(config, { env: {}, home: base });
  expect(closed.toSorted()).toEqual(
    [
      stateDir,
      join(base, "disk", "edge"),
      join(base, ".aegis"),
      join(base, "disk"),
      join(base, "etc", "edge.yaml"),
      join(base, "tokens", "node.token"),
    ].toSorted(),
  );
  expect(readOnly).toContain(realpathSync(process.execPath));
  expect(readOnly).toContain(join(base, ".config/systemd/user/aegis-edge.service"));
});
