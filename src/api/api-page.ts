/** The API on one page for people: every operation, what it needs and where its full description is. No script, nothing from elsewhere. */
import { type Operation, operations } from "./operations.ts";

const html = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

export function apiPage({ version }: { version: string }): string {
  const rows = Object.entries<Operation>(operations).map(
    ([name, { method, path, scope, summary }]) =>
      `<tr id="${name}"><td><code>${method} ${html(path)}</code></td><td>${html(summary)}</td><td>${scope ?? "any token"}</td></tr>`,
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>aegis controller API</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #ccc; vertical-align: top }
code { white-space: nowrap }
</style>
</head>
<body>
<h1>aegis controller API</h1>
<p>Version ${html(version)}. Requests carry <code>Authorization: Bearer TOKEN</code>; the full description, with every
field, is <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>
<table>
<thead><tr><th>Operation</th><th>What it does</th><th>Scope</th></tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table>
</body>
</html>
`;
}
