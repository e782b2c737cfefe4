/** Answers of tools, in the few forms they have. */
import { type ErrorKind, nothingCaptured, type ToolResult } from "./tool.ts";

export const failed = (errorKind: ErrorKind, errorMessage: string): ToolResult => ({
  ok: false,
  exitCode: 0,
  stdout: nothingCaptured,
  stderr: nothingCaptured,
  errorKind,
  errorMessage,
});
