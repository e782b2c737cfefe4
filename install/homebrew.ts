/** The Homebrew formula of a release: `brew install aegis-cli` on macOS and Linux, Intel and ARM. */
import { defaultBaseUrl } from "../src/release/source.ts";

/** Digests of the .tar.gz archives by target. */
export function formula(version: string, digests: ReadonlyMap<string, string>): string {
  const bottle = (target: string, indent: string): string => {
    const digest = digests.get(target);
    if (!digest) throw new Error(`the formula needs an archive for ${target}`);
    const url = `${defaultBaseUrl}/releases/v${version}/aegis-${version}-${target}.tar.gz`;
    return `${indent}url "${url}"\n${indent}sha256 "${digest}"`;
  };
  return `class AegisCli < Formula
  desc "Edge daemon, controller and CLI for acting on your own machines"
  homepage "https://docs.100monkeys.ai/deployment/edge-daemon-installation"
  version "${version}"
  license "Apache-2.0"

  on_macos do
    on_arm do
${bottle("darwin-arm64", "      ")}
    end
    on_intel do
${bottle("darwin-x64", "      ")}
    end
  end

  on_linux do
    on_arm do
${bottle("linux-arm64", "      ")}
    end
    on_intel do
${bottle("linux-x64", "      ")}
    end
  end

  def install
    bin.install "aegis"
    man1.install "aegis.1"
    bash_completion.install "completions/aegis.bash" => "aegis"
    zsh_completion.install "completions/_aegis"
    fish_completion.install "completions/aegis.fish"
  end

  service do
    run [opt_bin/"aegis", "edge", "run"]
    keep_alive successful_exit: false
    log_path var/"log/aegis-edge.out.log"
    error_log_path var/"log/aegis-edge.err.log"
  end

  test do
    assert_equal "aegis #{version}\\n", shell_output("#{bin}/aegis --version")
  end
end
`;
}
