import { expect, test } from "bun:test";
import { readValue } from "../../api/read.ts";
import { invokeRequestSchema } from "../../api/types.ts";
import { AegisError } from "../../errors.ts";
import { type FleetRunTexts, invokeRequest, toolArguments } from "./fleet-flags.ts";

const texts = (over: Partial<FleetRunTexts> = {}): FleetRunTexts => ({
  ...{ target: "all", tool: "cmd.run", args: undefined, context: "default", mode: "parallel" },
  ...{ "max-concurrency": undefined, "on-error": undefined, "require-min": undefined, deadline: "60s", ...over },
});

function message(act: () => unknown): string {
  try {
    return `accepted: ${JSON.stringify(act())}`;
  } catch (error) {
    return AegisError.from(error).message;
  }
}

test("every flag arrives in the request, in the API's own words", () => {
  const request = invokeRequest(
    texts({
      ...{ target: "os=linux tags=prod", context: "ops", mode: "rolling=5", "max-concurrency": "9" },
      ...{ "on-error": "stop-after=2", "require-min": "3", deadline: "1500ms" },
    }),
    ["command=uptime"],
  );
  expect(request).toEqual({
    target: { Selector: { os: "linux", tags: [{ Has: "prod" }] } },
    tool: "cmd.run",
    args: { command: "uptime" },
    context: "ops",
    policy: {
      ...{ mode: "rolling", batch: 5, max_concurrency: 9, on_error: "stop-after", stop_after: 2 },
      ...{ require_min: 3, deadline_secs: 1.5 },
    },
  });
  expect(readValue(invokeRequestSchema as never, request).kind).toBe("value");
  expect(readValue(invokeRequestSchema as never, invokeRequest(texts(), [])).kind).toBe("value");
});

test("a mode, an error rule or a number that is none is refused by the name of its flag", () => {
  const wrong = (over: Partial<FleetRunTexts>) => message(() => invokeRequest(texts(over), []));
  expect(wrong({ mode: "paralel" })).toBe('--mode "paralel" is not one of parallel, sequential, rolling=N');
  expect(wrong({ mode: "rolling" })).toStartWith('--mode "rolling" is not one of');
  expect(wrong({ mode: "rolling=0" })).toStartWith('--mode "0" is not a whole number');
  expect(wrong({ "on-error": "stop" })).toStartWith(
    '--on-error "stop" is not one of fail-fast, continue, stop-after=N',
  );
  expect(wrong({ "max-concurrency": "0" })).toStartWith("--max-concurrency");
  expect(wrong({ "require-min": "x" })).toStartWith("--require-min");
  expect(wrong({ deadline: "60" })).toStartWith("--deadline");
  expect(wrong({ target: "osx=linux" })).toContain("target");
});

test("--arg gives text, --args gives JSON, and the two may not name the same", () => {
  expect(toolArguments(undefined, ["n=5", "x=true"])).toEqual({ n: "5", x: "true" });
  expect(toolArguments('{"n":5,"list":["a"]}', ["x=y"])).toEqual({ n: 5, list: ["a"], x: "y" });
  expect(message(() => toolArguments("{", []))).toStartWith("--args is not JSON");
  for (const json of ["[]", "null", "3", '"x"'])
    expect(message(() => toolArguments(json, []))).toBe("--args is not a JSON object");
  expect(message(() => toolArguments('{"n":5}', ["n=6"]))).toBe("n is given by --arg and by --args");
});
