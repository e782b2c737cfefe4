import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needs } from "../../test/support/needs.ts";
import { commitFiles, type FileChange, finishCommit } from "./commit-files.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "aegis-commit-"));
});
afterEach(() => {
  chmodSync(dir, 0o700);
  rmSync(dir, { recursive: true });
});

const names = ["node.key", "node.token", "controller.keys", "aegis-config.yaml"] as const;
const put = (value: string) => {
  for (const name of names) writeFileSync(join(dir, name), value);
  writeFileSync(join(dir, "enrollment.jwt"), value);
};
const changes = (): FileChange[] => [
  ...names.map((name) => ({
    path: join(dir, name),
    content: Buffer.from("new"),
    mode: name.endsWith("yaml") ? 0o644 : 0o600,
  })),
  { path: join(dir, "enrollment.jwt"), content: null, mode: 0o600 },
];
const state = () => names.map((name) => readFileSync(join(dir, name), "utf8"));
const old = ["old", "old", "old", "old"];
const fresh = ["new", "new", "new", "new"];

test("all files change, with their modes, and nothing is left aside", async () => {
  put("old");
  await commitFiles(dir, changes());
  expect(state()).toEqual(fresh);
  expect(readdirSync(dir).toSorted()).toEqual([...names].toSorted());
  expect(statSync(join(dir, "aegis-config.yaml")).mode & 0o777).toBe(0o644);
  expect(statSync(join(dir, "node.key")).mode & 0o777).toBe(0o600);
});

test("what was not decided is thrown away, and the old files stay", async () => {
  put("old");
  mkdirSync(join(dir, "enroll.draft-0123456789ab"));
  writeFileSync(join(dir, "enroll.draft-0123456789ab", "0"), "new");
  expect(await finishCommit(dir)).toBe(false);
  expect(state()).toEqual(old);
  await commitFiles(dir, []);
  expect(existsSync(join(dir, "enroll.draft-0123456789ab"))).toBe(false);
});

test("a file that cannot be written aside leaves everything as it was", async () => {
  put("old");
  const problem = { path: join(dir, "x"), content: { length: -1 } as unknown as Uint8Array, mode: 0o600 };
  await expect(commitFiles(dir, [...changes(), problem])).rejects.toThrow(`nothing was changed in ${dir}`);
  expect(state()).toEqual(old);
  expect(readdirSync(dir)).toHaveLength(names.length + 1);
});

test("a folder that a crash left without its plan means nothing any more", async () => {
  put("old");
  mkdirSync(join(dir, "enroll.next"));
  writeFileSync(join(dir, "enroll.next", "0"), "new");
  expect(await finishCommit(dir)).toBe(false);
  expect(state()).toEqual(old);
  expect(existsSync(join(dir, "enroll.next"))).toBe(false);
});

test("a damaged plan is named with what to do", async () => {
  mkdirSync(join(dir, "enroll.next"));
  writeFileSync(join(dir, "enroll.next", "plan.json"), "[");
  await expect(finishCommit(dir)).rejects.toMatchObject({
    code: "config_invalid",
    message: `${join(dir, "enroll.next", "plan.json")} is damaged`,
  });
});

needs("linux", "command:strace")(
  "killed at any system call, the files are all old or all new once it is looked at again",
  async () => {
    const script = `import { commitFiles } from ${JSON.stringify(join(import.meta.dir, "commit-files.ts"))};
    await commitFiles(process.argv[1], JSON.parse(process.argv[2]).map((c) => ({ ...c, content: c.content && Buffer.from(c.content) })));`;
    const plan = JSON.stringify(changes().map((change) => ({ ...change, content: change.content && "new" })));
    const seen = { old: 0, new: 0 };
    for (const call of ["/^rename", "/^unlink", "fsync", "/^mkdir", "/^(f?chmod)"]) {
      for (const when of call === "/^unlink" ? [1, 2, 3, 4, 5, 6, 7] : [1, 2, 4, 6]) {
        rmSync(dir, { recursive: true });
        mkdirSync(dir);
        put("old");
        const inject = ["-e", `trace=${call}`, "-e", `inject=${call}:signal=SIGKILL:when=${when}`];
        const child = Bun.spawn(
          ["strace", "-f", "-qq", "-o", "/dev/null", ...inject, process.execPath, "-e", script, dir, plan],
          {
            stdio: ["ignore", "ignore", "ignore"],
            env: { ...process.env, UV_THREADPOOL_SIZE: "1" },
          },
        );
        await child.exited;
        await finishCommit(dir);
        const [first] = state();
        expect(state()).toEqual(first === "old" ? old : fresh);
        seen[first === "old" ? "old" : "new"]++;
        expect(readdirSync(dir).filter((name) => name === "enroll.next")).toEqual([]);
      }
    }
    expect(seen.old).toBeGreaterThan(0);
    expect(seen.new).toBeGreaterThan(0);
  },
  60_000,
);

test("what a crash left between two files is ended, as often as it takes", async () => {
  put("old");
  await commitFiles(dir, changes());
  // The moment after the decision, again, with one file already in its place.
  put("old");
  writeFileSync(join(dir, "node.key"), "new");
  mkdirSync(join(dir, "enroll.next"));
  writeFileSync(join(dir, "enroll.next", "0"), "new");
  writeFileSync(
    join(dir, "enroll.next", "plan.json"),
    JSON.stringify([
      ...names.map((name) => ({ path: join(dir, name), mode: 0o600, content: "0" })),
      { path: join(dir, "enrollment.jwt"), mode: 0o600, content: null },
    ]),
  );
  expect(await finishCommit(dir)).toBe(true);
  expect(await finishCommit(dir)).toBe(false);
  expect(state()).toEqual(fresh);
  expect(existsSync(join(dir, "enrollment.jwt"))).toBe(false);
});
