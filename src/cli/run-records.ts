/** Shows a run to programs: every event as one JSON line, or one YAML document. */
import { stringifyYAML } from "confbox/yaml";
import type { RunView } from "./run-report.ts";
import type { Terminal } from "./terminal.ts";

export function recordsView(terminal: Pick<Terminal, "data">, format: "json" | "yaml"): RunView {
  return {
    async show({ id, event, data }) {
      const record = { event, id, ...data };
      await terminal.data(format === "json" ? `${JSON.stringify(record)}\n` : `---\n${stringifyYAML(record)}`);
    },
    end: async () => {},
  };
}
