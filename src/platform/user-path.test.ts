import { expect, test } from "bun:test";
import type { RunProgram } from "./run-program.ts";
import { changeUserPath, readQuery, withFolder, withoutFolder } from "./user-path.ts";

const folder = "C:\\Users\\ann\\AppData\\Local\\Programs\\aegis";

test("the folder comes first, once, and everything else stays as it is written", () => {
  expect(withFolder("", folder)).toBe(folder);
  expect(withFolder("C:\\a;%USERPROFILE%\\b", folder)).toBe(`${folder};C:\\a;%USERPROFILE%\\b`);
  expect(withFolder(`C:\\a;${folder.toUpperCase()}\\;C:\\b`, folder)).toBe(`${folder};C:\\a;C:\\b`);
  expect(withFolder(`"${folder}";C:\\a`, folder)).toBe(`"${folder}";C:\\a`);
  expect(withoutFolder(`C:\\a;${folder};C:\\b`, folder)).toBe("C:\\a;C:\\b");
  expect(withoutFolder("C:\\a;;C:\\b", folder)).toBe("C:\\a;;C:\\b");
});

test("what reg prints is read with its type, spaces and empty values included", () => {
  const said = (line: string) => readQuery(`\r\nHKEY_CURRENT_USER\\Environment\r\n${line}\r\n\r\n`);
  expect(said("    Path    REG_SZ    C:\\Program Files\\x;C:\\y")).toEqual({
    type: "REG_SZ",
    path: "C:\\Program Files\\x;C:\\y",
  });
  expect(said("    Path    REG_EXPAND_SZ    ")).toEqual({ type: "REG_EXPAND_SZ", path: "" });
});

test("twice is the same as once, and a refusal says what to do by hand", async () => {
  let path = "";
  const calls: string[] = [];
  const reg: RunProgram = async (_command, args) => {
    calls.push(args[0] ?? "");
    if (args[0] === "add") path = args[args.indexOf("/d") + 1] ?? "";
    return path === "" && args[0] === "query"
      ? { status: 1, stdout: "", stderr: "unable to find" }
      : { status: 0, stdout: `    Path    REG_SZ    ${path}\r\n`, stderr: "" };
  };
  expect(await changeUserPath(reg, folder, "add")).toBe(true);
  expect(await changeUserPath(reg, folder, "add")).toBe(false);
  expect(path).toBe(folder);
  expect(calls).toEqual(["query", "add", "query"]);
  const denied: RunProgram = async () => ({ status: 1, stdout: "", stderr: "ERROR: Access is denied.\r\n" });
  await expect(changeUserPath(denied, folder, "add")).rejects.toThrow(
    "cannot change your Path: ERROR: Access is denied.",
  );
});
