# shellcheck shell=bash disable=SC2034
# What every script here needs: where things are, and how to speak. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$ROOT/build
# Where Debian keeps depmod, modprobe and mkfs.ext4, outside a user's path.
PATH=$PATH:/usr/sbin:/sbin
# Shared by all clones on a machine: the packages downloaded once.
CACHE=${NACELLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nacelle}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 2; }
have() { command -v "$1" >/dev/null 2>&1; }

# newer OUTPUT INPUT...: OUTPUT exists and no INPUT is newer than it.
newer() {
    local output=$1 input
    shift
    [[ -e $output ]] || return 1
    for input; do [[ $input -nt $output ]] && return 1; done
    return 0
}

# version_at_least HAVE WANT
version_at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

# Debian 12 is the system on which the set-up installs by itself.
on_debian_12() { grep -qs '^ID=debian$' /etc/os-release && grep -qs '^VERSION_ID="12"$' /etc/os-release; }

# archive DIRECTORY: a newc archive of it on standard output, owned by root, the same for the same content.
archive() {
    (cd "$1" && find . -mindepth 1 -print0 | LC_ALL=C sort -z |
        cpio --null --create --format=newc --owner=0:0 --reproducible --quiet)
}

# pack DIRECTORY: the same, compressed.
pack() { archive "$1" | gzip -n -6; }

# mebibytes SIZE: 512, 512M or 3G as a number of MiB. What the shell cannot multiply is no size.
mebibytes() {
    case $1 in
    "" | *[!0-9MGmg]* | [MGmg]* | *[MGmg]?* | ????????????????*) die "'$1' is not a size: say 512, 512M or 3G" ;;
    *[Gg]) echo $((${1%?} * 1024)) ;;
    *[Mm]) echo "${1%?}" ;;
    *) echo "$1" ;;
    esac
}
