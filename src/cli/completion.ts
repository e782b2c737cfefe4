/** `completion`: a script that lets a shell finish what is typed, made from the command tree. */
import { command } from "./command.ts";
import { scriptFor, shells, type Word, wordsOf } from "./completion-scripts.ts";

export default command({
  example: "aegis completion bash > ~/.local/share/bash-completion/completions/aegis",
  details: `bash: as in the example. zsh: aegis completion zsh > a folder of $fpath, as _aegis. fish: aegis completion fish >
~/.config/fish/completions/aegis.fish. powershell: aegis completion powershell | Out-String | Invoke-Expression, in $PROFILE.`,
  args: {
    shell: { type: "positional", valueHint: "SHELL", description: shells.join(", ") },
  },
  async run({ args, terminal }) {
    const { tree } = await import("./tree.ts");
    const words: ReadonlyMap<string, readonly Word[]> = await wordsOf(tree);
    await terminal.data(scriptFor(args.shell, words));
    return undefined;
  },
});
