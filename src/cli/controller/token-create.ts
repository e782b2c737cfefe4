/** `controller token create`: a bearer token made beside the database, so it needs no token to begin with. */
import { scopes } from "../../api/types.ts";
import { loadControllerConfig } from "../../config/controller.ts";
import { createOperatorToken } from "../../controller/operator-tokens.ts";
import { AegisError } from "../../errors.ts";
import { systemClock } from "../../platform/clock.ts";
import { nearest } from "../../platform/nearest.ts";
import { command, many } from "../command.ts";
import { controllerDir, dataDirFlag, duration, outputFlag, printResult } from "../options.ts";

export default command({
  example: "aegis controller token create --name ci --scope aegis.edge.fleet.manage --expires 30d",
  details: "Run it where the controller's data lies, whether or not the controller runs. The token is shown once.",
  args: {
    "data-dir": dataDirFlag,
    name: { type: "string", valueHint: "NAME", required: true, description: "who will use it; hosts see this name" },
    tenant: { type: "string", valueHint: "NAME", default: "default", description: "whose hosts it reaches" },
    scope: many("SCOPE", `what it may do: ${scopes.join(", ")}`),
    context: many("NAME", "security contexts it may name (default: default)"),
    expires: { type: "string", valueHint: "DURATION", description: "how long it is good for (default: for ever)" },
    output: outputFlag,
  },
  async run(given) {
    const { args, every, terminal } = given;
    const contexts = every("context");
    const request = {
      name: args.name,
      tenantId: args.tenant,
      scopes: knownScopes(every("scope")),
      contexts: contexts.length > 0 ? contexts : ["default"],
      expiresAt: args.expires ? systemClock.now() + duration("--expires", args.expires) : null,
    };
    const dataDir = controllerDir(args["data-dir"], given);
    // Names a directory that holds no controller, where opening the database would make one.
    await loadControllerConfig(dataDir);
    const { tokenId, token } = await createOperatorToken({ dataDir, clock: systemClock, ...request });
    const shown = {
      id: tokenId,
      name: request.name,
      tenant_id: request.tenantId,
      scopes: request.scopes,
      contexts: request.contexts,
      expires_at: request.expiresAt === null ? null : new Date(request.expiresAt).toISOString(),
      token: token.reveal(),
    };
    await printResult(given, args.output, shown, () => `${shown.token}\n`);
    terminal.note("it is not shown again; use it as AEGIS_USER_TOKEN");
    return undefined;
  },
});

function knownScopes(texts: readonly string[]): string[] {
  const hint = `give one or more of: ${scopes.join(" ")}`;
  if (texts.length === 0) throw new AegisError("usage", "a token without --scope could do nothing", { hint });
  for (const text of texts) {
    if (scopes.some((scope) => scope === text)) continue;
    const meant = nearest(text, scopes);
    throw new AegisError(
      "usage",
      `there is no scope ${JSON.stringify(text)}${meant ? `; did you mean ${meant}?` : ""}`,
      { hint },
    );
  }
  return [...new Set(texts)];
}
