/** What each shell must be told so that it can finish a line that begins with `aegis`. */
import { AegisError } from "../errors.ts";
import { nearest } from "../platform/nearest.ts";
import type { Group } from "./command.ts";
import { isLeaf } from "./root.ts";
import { spelling } from "./strict.ts";

export interface Word {
  text: string;
  summary: string;
  /** A flag that something must follow; what that may be, when it is one of a few. */
  value?: readonly string[];
}

/** Path below `aegis`, such as `edge fleet` (empty for the root) -> what may come next there. */
export async function wordsOf(group: Group, path = ""): Promise<Map<string, Word[]>> {
  const found = new Map<string, Word[]>();
  found.set(
    path,
    Object.entries(group.commands).map(([text, { summary }]) => ({ text, summary })),
  );
  for (const [name, node] of Object.entries(group.commands)) {
    const below = path ? `${path} ${name}` : name;
    if (!isLeaf(node)) {
      for (const [at, words] of await wordsOf(node, below)) found.set(at, words);
      continue;
    }
    const { flags } = await node.load();
    const words = Object.entries(flags).flatMap(([flag, def]): Word[] => {
      if (def.type === "positional") return [];
      const summary = (def.type === "boolean" && def.negativeDescription) || (def.description ?? "");
      const value = def.type === "boolean" ? {} : { value: def.type === "enum" ? (def.options ?? []) : [] };
      return [{ text: spelling(flag, def), summary, ...value }];
    });
    found.set(below, [...words, { text: "--help", summary: "what it does, and one example" }]);
  }
  return found;
}

type Words = ReadonlyMap<string, readonly Word[]>;

const writers: Readonly<Record<string, (words: Words) => string>> = { bash, zsh, fish, powershell };
export const shells: readonly string[] = Object.keys(writers);

export function scriptFor(shell: string, words: Words): string {
  const write = Object.hasOwn(writers, shell) ? writers[shell] : undefined;
  if (write) return write(words);
  const meant = nearest(shell, shells);
  throw new AegisError(
    "usage",
    `no completion for ${JSON.stringify(shell)}${meant ? `; did you mean ${meant}?` : ""}`,
    {
      hint: `there is: ${shells.join(", ")}`,
    },
  );
}

const single = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** `path|flag` -> the values of that flag. */
function valuesOf(words: Words): [string, readonly string[]][] {
  return [...words].flatMap(([path, list]) =>
    list.flatMap(({ text, value }): [string, readonly string[]][] => (value ? [[`${path}|${text}`, value]] : [])),
  );
}

/** The part that bash and zsh share: `$place` is the command so far (zsh keeps `$path` for itself), `$pending` a flag that waits for its value. */
function shellCases(words: Words, from: string): string {
  const paths = [...words.keys()].filter(Boolean).map(single);
  const pending = valuesOf(words).map(([key]) => single(key));
  return `  local place="" pending="" word next
  for word in ${from}; do
    if [[ -n $pending ]]; then pending=""; continue; fi
    [[ $word == -- ]] && return
    if [[ $word == -* ]]; then
      case "$place|$word" in ${pending.join("|")}) pending="$place|$word" ;; esac
      continue
    fi
    next="\${place:+$place }$word"
    case "$next" in ${paths.join("|")}) place="$next" ;; esac
  done
`;
}

function bash(words: Words): string {
  const values = valuesOf(words).map(([key, list]) => `    ${single(key)}) words=${single(list.join(" "))} ;;`);
  const cases = [...words].map(
    ([path, list]) => `    ${single(path)}) words=${single(list.map(({ text }) => text).join(" "))} ;;`,
  );
  return `# Lets bash finish aegis commands: source it, or put it into bash-completion's folder.
_aegis() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" words=""
${shellCases(words, `"\${COMP_WORDS[@]:1:COMP_CWORD-1}"`)}  if [[ -n $pending ]]; then case "$pending" in
${values.join("\n")}
  esac; else case "$place" in
${cases.join("\n")}
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _aegis aegis
`;
}

function zsh(words: Words): string {
  const values = valuesOf(words).map(([key, list]) =>
    list.length > 0
      ? `    ${single(key)}) compadd -- ${list.map(single).join(" ")} ;;`
      : `    ${single(key)}) _files ;;`,
  );
  const described = (list: readonly Word[]) =>
    list.map(({ text, summary }) => single(`${text.replaceAll(":", "\\:")}:${summary}`)).join(" ");
  const cases = [...words].map(([path, list]) => `    ${single(path)}) list=(${described(list)}) ;;`);
  return `#compdef aegis
# Lets zsh finish aegis commands: put it into a folder of $fpath, as _aegis.
_aegis() {
  local -a list
${shellCases(words, `"\${(@)words[2,CURRENT-1]}"`)}  if [[ -n $pending ]]; then case "$pending" in
${values.join("\n")}
  esac; return; fi
  case "$place" in
${cases.join("\n")}
  esac
  _describe aegis list
}
if [[ "\${funcstack[1]}" == _aegis ]]; then _aegis "$@"; else compdef _aegis aegis; fi
`;
}

function fish(words: Words): string {
  const lines = [...words].flatMap(([path, list]) =>
    list.map(({ text, summary, value }) => {
      const what = text.startsWith("--") ? `-l ${text.slice(2)}` : `-f -a ${text}`;
      const takes = value === undefined ? "" : value.length > 0 ? ` -x -a ${fishQuoted(value.join(" "))}` : " -r";
      return `complete -c aegis -n ${fishQuoted(`__aegis_at "${path}"`)} ${what}${takes} -d ${fishQuoted(summary)}`;
    }),
  );
  const paths = [...words.keys()].filter(Boolean).map(fishQuoted).join(" ");
  return `# Lets fish finish aegis commands: save it as ~/.config/fish/completions/aegis.fish
function __aegis_at
    set -l path
    for word in (commandline -opc)[2..-1]
        if test "$word" = --
            return 1
        end
        set -l next (string trim "$path $word")
        if contains -- "$next" ${paths}
            set path $next
        end
    end
    test "$path" = "$argv[1]"
end
${lines.join("\n")}
`;
}

const fishQuoted = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

function powershell(words: Words): string {
  const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`;
  const rows = [...words].map(
    ([path, list]) =>
      `    ${quoted(path)} = @(${list.map(({ text, summary }) => `@(${quoted(text)}, ${quoted(summary || text)})`).join(", ")})`,
  );
  return `# Lets PowerShell finish aegis commands: put it into $PROFILE.
Register-ArgumentCompleter -Native -CommandName aegis, aegis.exe -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $table = @{
${rows.join("\n")}
  }
  $path = ''
  foreach ($element in $commandAst.CommandElements | Select-Object -Skip 1) {
    $word = $element.ToString()
    if ($word -eq '--') { return }
    $next = "$path $word".Trim()
    if ($table.ContainsKey($next)) { $path = $next }
  }
  foreach ($entry in $table[$path]) {
    if ($entry[0].StartsWith($wordToComplete)) {
      [System.Management.Automation.CompletionResult]::new($entry[0], $entry[0], 'ParameterValue', $entry[1])
    }
  }
}
`;
}
