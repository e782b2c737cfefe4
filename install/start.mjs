/** `npm start`: installs, builds dist/aegis unless it is current, and runs `aegis dev` with the remaining arguments. */
// @ts-check
import { join } from "node:path";
import { build, foreground, root, runMain, setup } from "./setup.mjs";

await runMain(async () => {
  build(setup());
  const name = process.platform === "win32" ? "aegis.exe" : "aegis";
  return foreground(join(root, "dist", name), ["dev", ...process.argv.slice(2)]);
});
