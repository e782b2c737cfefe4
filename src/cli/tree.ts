/** Every command there is, with its one line for help. Nothing below a name is loaded before that name is typed. */
import { group, leaf } from "./command.ts";

export const tree = group("aegis runs commands on machines you own, under a policy their owners keep.", {
  edge: group("The host side, and what operators do with hosts.", {
    status: leaf("whether this host is connected", () => import("./edge/status.ts")),
  }),
});
