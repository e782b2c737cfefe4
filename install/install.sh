#!/bin/sh
# Installs aegis on Linux and macOS: curl -fsSL https://get.100monkeys.ai | bash
#
# Options, after `| bash -s --` or of the saved script:
#   --from FILE|DIR   take the release from a file or folder on this machine; no network is used
#   --dry-run         say what would be done and change nothing
#   --restart         restart an installed edge service afterwards
#   --uninstall       remove the executable
# Environment:
#   AEGIS_VERSION      such as 0.2.0; the latest when unset
#   AEGIS_INSTALL_DIR  where aegis goes; /usr/local/bin when that can be written, else ~/.local/bin
#   AEGIS_BASE_URL     another place that serves the same files
# Nothing is placed before the release's signature and the archive's digest were checked.
# Everything happens in `main`, which the last line calls: half a script does nothing.
set -u

base_url=${AEGIS_BASE_URL:-https://get.100monkeys.ai}
scratch='' beside=''

# What a mirror may send at most, in the blocks of ulimit: 512 bytes, and 1024 in bash.
list_blocks=128 archive_blocks=524288

release_key() {
  cat <<'KEY'
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXsX1LQiXTU5cLbi7cCk6RsOM9CxW
mGkBB54XjWRAQeFP/PqnyTlaytGMcS4TRaHbYmWbn/8TmOTV2yKPHI4noQ==
-----END PUBLIC KEY-----
KEY
}

say() { printf '%s\n' "$*" >&2; }

# fail MESSAGE [HINT]
fail() {
  say "aegis: $1"
  [ $# -lt 2 ] || say "  $2"
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

clean_up() {
  [ -z "$scratch" ] || rm -rf "$scratch"
  [ -z "$beside" ] || rm -f "$beside"
  scratch='' beside=''
}

usage() {
  say "usage: install.sh [--from FILE|DIR] [--dry-run] [--restart] [--uninstall]"
  say "environment: AEGIS_VERSION AEGIS_INSTALL_DIR AEGIS_BASE_URL"
}

read_options() {
  from='' dry_run=no restart=no action=install
  while [ $# -gt 0 ]; do
    case $1 in
      --from)
        [ -n "${2:-}" ] || fail "--from needs a file or folder"
        from=$2
        shift
        ;;
      --from=*) from=${1#--from=} ;;
      --dry-run) dry_run=yes ;;
      --restart) restart=yes ;;
      --uninstall) action=uninstall ;;
      -h | --help) usage; exit 0 ;;
      *)
        say "aegis: unknown option $1"
        usage
        exit 2
        ;;
    esac
    shift
  done
}

# Sets `target`, or says why there is none for this machine.
detect_target() {
  system=$(uname -s) machine=$(uname -m)
  case $machine in
    x86_64 | amd64) cpu=x64 ;;
    aarch64 | arm64) cpu=arm64 ;;
    *) fail "there is no aegis for the processor $machine" "there is one for x86_64 and for arm64" ;;
  esac
  case $system in
    Linux)
      check_linux
      target=linux-$cpu
      ;;
    Darwin)
      # A translated shell on Apple silicon calls itself x86_64.
      [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || echo 0)" != 1 ] || cpu=arm64
      target=darwin-$cpu
      ;;
    *) fail "there is no aegis for $system here" "on Windows use: iwr -useb $base_url | iex" ;;
  esac
}

check_linux() {
  libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)
  case $libc in
    "glibc "*)
      version=${libc#glibc }
      major=${version%%.*} minor=${version#*.}
      minor=${minor%%.*}
      if [ "$major" -lt 2 ] || { [ "$major" -eq 2 ] && [ "$minor" -lt 17 ]; }; then
        fail "this system has glibc $version; aegis needs 2.17 or newer"
      fi
      ;;
    *)
      if ls /lib/ld-musl-* >/dev/null 2>&1 || ldd --version 2>&1 | grep -qi musl; then
        fail "this system uses musl; aegis needs glibc 2.17 or newer" "Alpine and other musl systems are not supported"
      fi
      ;;
  esac
  if [ "$cpu" = x64 ] && [ -r /proc/cpuinfo ] && ! grep -qw avx2 /proc/cpuinfo; then
    fail "this processor lacks AVX2, which aegis needs (Intel since 2013, AMD since 2015)"
  fi
}

# Sets `dir`, where the executable goes.
choose_directory() {
  if [ -n "${AEGIS_INSTALL_DIR:-}" ]; then
    dir=$AEGIS_INSTALL_DIR
  elif [ "$(id -u)" = 0 ] || [ -w /usr/local/bin ]; then
    dir=/usr/local/bin
  else
    [ -n "${HOME:-}" ] || fail "HOME is not set and /usr/local/bin cannot be written" "set AEGIS_INSTALL_DIR"
    dir=$HOME/.local/bin
  fi
  case $dir in
    /*) ;;
    *) fail "the folder $dir is not an absolute path" "set AEGIS_INSTALL_DIR to one" ;;
  esac
  [ ! -d "$dir/aegis" ] || fail "$dir/aegis is a folder" "move it away, or set AEGIS_INSTALL_DIR to another place"
  case $(readlink "$dir/aegis" 2>/dev/null) in
    *Cellar/*) fail "$dir/aegis belongs to Homebrew" "brew upgrade aegis-cli, or first: brew uninstall aegis-cli" ;;
  esac
}

# older A B: whether version A comes before B. Numbers decide; with equal ones, a version with a suffix comes before one
# without, and two suffixes are not compared.
older() {
  printf '%s\n%s\n' "$1" "$2" | sed 's/-/./' | awk -F. '
    NR == 1 { for (i = 1; i <= 3; i++) was[i] = $i + 0; suffix = NF > 3; next }
    {
      for (i = 1; i <= 3; i++) if (was[i] != $i + 0) exit (was[i] > $i + 0)
      exit !(suffix && NF == 3)
    }'
}

# A mirror can sign nothing, but it could hand out an old release for the latest.
refuse_older() {
  [ -z "${AEGIS_VERSION:-}" ] && [ -z "$from_file" ] || return 0
  case $before in
    "aegis "[0-9]*.[0-9]*.[0-9]*)
      ! older "$version" "${before#aegis }" ||
        fail "$where offers $version, which is older than the $before that is there" "nothing was changed; if you want it: AEGIS_VERSION=$version"
      ;;
  esac
}

# fetch NAME FILE
fetch() {
  if [ -n "$from" ]; then
    [ -f "$folder/$1" ] || fail "$folder/$1 is missing" "put the release's $1 beside the archive"
    cp "$folder/$1" "$2" || fail "cannot copy $folder/$1"
    return
  fi
  url=$where/$1
  case $url in
    http://*@*) fail "$base_url is not an https address" ;;
    https://*) redirects='=https' ;;
    http://127.0.0.1[:/]* | http://localhost[:/]*) redirects='=http,https' ;;
    *) fail "$base_url is not an https address" ;;
  esac
  quiet=-q blocks=$list_blocks
  case $1 in
    *.tar.*)
      blocks=$archive_blocks
      [ ! -t 2 ] || quiet=--progress-bar
      ;;
  esac
  if has curl; then
    [ "$quiet" != -q ] || quiet=-sS
    # A mirror that sends for ever, or next to nothing, is given up.
    (ulimit -f "$blocks" && exec curl -fL "$quiet" --proto-redir "$redirects" --retry 2 --connect-timeout 20 \
      --speed-limit 1000 --speed-time 60 -o "$2" "$url")
  elif has wget; then
    if [ "$quiet" != -q ]; then
      if wget --help 2>&1 | grep -q -e --show-progress; then quiet='-q --show-progress'; else quiet=; fi
    fi
    # shellcheck disable=SC2086 # none, one or two words
    (ulimit -f "$blocks" && exec wget $quiet -O "$2" "$url")
  else
    fail "neither curl nor wget is here" "install one of them, or use --from with a downloaded release"
  fi || fail "cannot download $url" "check the network; behind a proxy set https_proxy"
}

sha256_of() {
  if has sha256sum; then
    sha256sum "$1" | cut -d ' ' -f 1
  elif has shasum; then
    shasum -a 256 "$1" | cut -d ' ' -f 1
  else
    openssl dgst -sha256 "$1" | sed 's/.* //'
  fi
}

# Downloads and verifies the list, then sets `archive`, `digest` and `version` from it.
choose_archive() {
  has openssl || fail "openssl is not here, and without it the release's signature cannot be checked" "install openssl and try again"
  fetch SHA256SUMS "$scratch/SHA256SUMS"
  fetch SHA256SUMS.sig "$scratch/SHA256SUMS.sig"
  release_key >"$scratch/key.pem"
  openssl dgst -sha256 -verify "$scratch/key.pem" -signature "$scratch/SHA256SUMS.sig" "$scratch/SHA256SUMS" >/dev/null 2>&1 ||
    fail "SHA256SUMS is not signed by the aegis release key" "nothing was installed; do not use this copy"
  kinds=tar.gz
  ! has xz || kinds="tar.xz tar.gz"
  archive=
  if [ -n "$from_file" ]; then
    archive=$from_file
    case $archive in
      aegis-*-"$target".tar.gz | aegis-*-"$target".tar.xz) ;;
      *) fail "$archive is not an archive for $target" ;;
    esac
  else
    for kind in $kinds; do
      name=$(sed -n "s/^[0-9a-f]\{64\} [ *]\(aegis-[0-9][0-9A-Za-z.+-]*-$target\.$kind\)\$/\1/p" "$scratch/SHA256SUMS" | head -n 1)
      [ -z "$name" ] || { [ -n "$from" ] && [ ! -f "$folder/$name" ]; } || { archive=$name && break; }
    done
    [ -n "$archive" ] || fail "this release has no archive for $target"
  fi
  digest=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]$(printf %s "$archive" | sed 's/[.+]/\\&/g')\$/\1/p" "$scratch/SHA256SUMS" | head -n 1)
  [ -n "$digest" ] || fail "$archive is not in the signed list of this release"
  version=${archive#aegis-}
  version=${version%-"$target".tar.*}
  [ -z "${AEGIS_VERSION:-}" ] || [ "$version" = "$AEGIS_VERSION" ] || fail "this is aegis $version, not the $AEGIS_VERSION that was asked for"
}

unpack() {
  fetch "$archive" "$scratch/$archive"
  found=$(sha256_of "$scratch/$archive")
  [ "$found" = "$digest" ] || fail "$archive is damaged: its SHA-256 is $found, the signed one $digest" "nothing was installed; try again"
  case $archive in
    *.tar.xz) xz -dc "$scratch/$archive" >"$scratch/release.tar" ;;
    *) gzip -dc "$scratch/$archive" >"$scratch/release.tar" ;;
  esac || fail "$archive cannot be unpacked" "is there room in ${TMPDIR:-/tmp}?"
  tar -xf "$scratch/release.tar" -C "$scratch" "aegis-$version-$target/aegis" || fail "$archive cannot be unpacked" "is there room in ${TMPDIR:-/tmp}?"
  new=$scratch/aegis-$version-$target/aegis
  said=$("$new" --version 2>&1) || fail "the new aegis does not run on this machine: $said" "if ${TMPDIR:-/tmp} forbids running programs, set TMPDIR to a folder that allows it"
  [ "$said" = "aegis $version" ] || fail "the new executable calls itself '$said', not aegis $version"
}

# The copy lies beside its place, so that the last step is one rename: always the old one or the new one.
place() {
  mkdir -p "$dir" || fail "cannot make $dir" "set AEGIS_INSTALL_DIR to a folder that you can write"
  # Made new under a name that nobody can foresee: nothing that others put there is written through.
  beside=$(mktemp "$dir/.aegis.new.XXXXXX") || fail "cannot write into $dir; what was there is unchanged" "set AEGIS_INSTALL_DIR to a folder that you can write"
  if ! cp "$new" "$beside" || ! chmod 755 "$beside" || ! mv -f "$beside" "$dir/aegis"; then
    fail "cannot write $dir/aegis; what was there is unchanged" "is there room, and may you write there? Else set AEGIS_INSTALL_DIR"
  fi
  beside=
}

tell() {
  say "aegis $version is installed: $dir/aegis"
  case ":${PATH:-}:" in
    *":$dir:"*) ;;
    *) say "$dir is not in your PATH yet. Add it: export PATH=\"$dir:\$PATH\"" ;;
  esac
  if [ -n "$before" ] && [ "$restart" = no ]; then
    say "It replaces $before. A running edge goes on with the old one until: aegis edge service restart"
  elif [ -z "$before" ]; then
    say "Next, to make this machine a host: aegis edge enroll TOKEN"
    say "Or try everything on this machine alone: aegis dev"
  fi
}

uninstall() {
  choose_directory
  [ -e "$dir/aegis" ] || [ -L "$dir/aegis" ] || fail "there is no $dir/aegis" "set AEGIS_INSTALL_DIR to where it lies"
  for unit in "${HOME:-}/.config/systemd/user/aegis-edge.service" /etc/systemd/system/aegis-edge.service "${HOME:-}/Library/LaunchAgents/io.aegis.edge.plist"; do
    [ ! -e "$unit" ] || fail "the service $unit still runs $dir/aegis" "first: aegis edge logout && aegis edge service uninstall"
  done
  if [ "$dry_run" = yes ]; then
    say "would remove $dir/aegis"
    return
  fi
  rm -f "$dir/aegis" "$dir/aegis.previous" || fail "cannot remove $dir/aegis" "run this as the user who owns it"
  say "removed $dir/aegis"
  [ ! -d "${HOME:-}/.aegis" ] || say "your keys and settings stay in $HOME/.aegis; to remove them too: rm -rf ~/.aegis"
}

main() {
  [ -z "${ZSH_VERSION:-}" ] || emulate sh
  # Folders and files of ours are for everybody to read and for their owner to write.
  umask 022
  read_options "$@"
  if [ "$action" = uninstall ]; then
    uninstall
    return
  fi
  detect_target
  choose_directory
  folder='' from_file=''
  if [ -n "$from" ]; then
    if [ -d "$from" ]; then
      folder=$from
    elif [ -f "$from" ]; then
      folder=$(dirname -- "$from") from_file=$(basename -- "$from")
    else
      fail "$from does not exist"
    fi
    where=$from
  elif [ -n "${AEGIS_VERSION:-}" ]; then
    where=${base_url%/}/releases/v$AEGIS_VERSION
  else
    where=${base_url%/}/releases/latest
  fi
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/aegis-install.XXXXXX") || fail "cannot make a folder in ${TMPDIR:-/tmp}"
  trap clean_up EXIT
  trap 'exit 1' HUP INT TERM
  choose_archive
  before=
  [ ! -x "$dir/aegis" ] || before=$("$dir/aegis" --version 2>/dev/null || echo "an aegis that does not run")
  refuse_older
  if [ "$dry_run" = yes ]; then
    say "would install aegis $version from $where/$archive to $dir/aegis${before:+, replacing $before}"
    return
  fi
  say "installing aegis $version for $target from $where"
  unpack
  place
  tell
  [ "$restart" = no ] || "$dir/aegis" edge service restart || fail "aegis is installed, but the service did not restart" "aegis edge service status"
}

# In braces, so that no part of this line is a command of its own.
{ main "$@"; }
