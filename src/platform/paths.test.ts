import { expect, test } from "bun:test";
import { aegisHome, defaultControllerDir, defaultEdgeDir, expandHome, resolveFrom } from "./paths.ts";

test("everything is under ~/.aegis unless AEGIS_HOME says otherwise", () => {
  expect(aegisHome({}, "/home/ann")).toBe("/home/ann/.aegis");
  expect(aegisHome({ AEGIS_HOME: "" }, "/home/ann")).toBe("/home/ann/.aegis");
  expect(aegisHome({ AEGIS_HOME: "/srv/aegis" }, "/home/ann")).toBe("/srv/aegis");
  expect(aegisHome({ AEGIS_HOME: "~/other" }, "/home/ann")).toBe("/home/ann/other");
  expect(defaultEdgeDir({}, "/home/ann")).toBe("/home/ann/.aegis/edge");
  expect(defaultControllerDir({ AEGIS_HOME: "/srv" }, "/home/ann")).toBe("/srv/controller");
});

test("~ is the home directory, and only a leading one that stands alone", () => {
  expect(expandHome("~", "/h")).toBe("/h");
  expect(expandHome("~/a", "/h")).toBe("/h/a");
  expect(expandHome("~bob/a", "/h")).toBe("~bob/a");
  expect(expandHome("/a/~/b", "/h")).toBe("/a/~/b");
});

test("a relative path starts where its file lies", () => {
  expect(resolveFrom("/etc/aegis", "ca.pem", "/h")).toBe("/etc/aegis/ca.pem");
  expect(resolveFrom("/etc/aegis", "~/ca.pem", "/h")).toBe("/h/ca.pem");
  expect(resolveFrom("/etc/aegis", "/ca.pem", "/h")).toBe("/ca.pem");
});
