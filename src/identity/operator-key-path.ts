/** Where the key lies with which an operator signs calls. Apart from the key itself, so that looking for it costs nothing. */
import { join } from "node:path";
import { aegisHome, type Environment } from "../platform/paths.ts";

export interface OperatorPlace {
  env: Environment;
  home: string;
}

export const operatorKeyPath = ({ env, home }: OperatorPlace): string => join(aegisHome(env, home), "operator.key");
