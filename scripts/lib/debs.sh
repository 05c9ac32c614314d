# shellcheck shell=bash
# Debian packages that are unpacked rather than installed: downloaded once, checked, taken apart. Sourced after common.sh.
#
# apt checks their signatures when it downloads them. Their SHA-256 is recorded then and checked at each later use. They
# stay in directories of $CACHE, one for each purpose.

# The Debian mirror that this machine's apt already uses.
mirror() {
    local uri
    uri=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
    [[ -n $uri ]] || uri=$(sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) bookworm .*/\2/p' /etc/apt/sources.list 2>/dev/null | head -n 1)
    [[ -n $uri ]] || die "no Debian mirror found in /etc/apt: there is no source for bookworm"
    echo "$uri"
}

# private_apt DIRECTORY COMPONENT: an apt configuration (DIRECTORY/apt.conf) that knows one component of bookworm for
# arm64 and nothing of the system's sources, which stay as they are.
private_apt() {
    mkdir -p "$1"/{lists/partial,cache/archives/partial}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) bookworm $2" >"$1/sources.list"
    : >"$1/status"
    printf '%s "%s";\n' Dir::Etc::sourcelist "$1/sources.list" Dir::Etc::sourceparts /dev/null Dir::State::lists "$1/lists" \
        Dir::State::status "$1/status" Dir::Cache "$1/cache" APT::Architecture arm64 APT::Architectures arm64 \
        Acquire::Languages none APT::Get::List-Cleanup false >"$1/apt.conf"
    apt-get -c "$1/apt.conf" update -qq
}

# debs DIRECTORY [--component COMPONENT] NAME...: makes $CACHE/DIRECTORY hold these packages for arm64 and their sums.
debs() {
    local directory=$CACHE/$1 component="" partial configuration=() lock
    shift
    mkdir -p "$CACHE"
    exec {lock}>"$CACHE/lock"
    flock "$lock"
    if [[ $1 == --component ]]; then component=$2; shift 2; fi
    if [[ $(cat "$directory/complete" 2>/dev/null) == "$*" ]]; then
        (cd "$directory" && sha256sum --check --quiet --strict SHA256SUMS) >&2 ||
            die "a downloaded package is damaged; remove $directory and try again"
        exec {lock}>&-
        return
    fi
    have apt-get || die "put the packages $* of Debian 12 for arm64 into $directory, their sums into SHA256SUMS there" \
        "(sha256sum *.deb), and the line '$*' into a file 'complete'"
    say "downloading Debian's $* to $directory"
    partial=$(mktemp -d "$CACHE/partial.XXXXXX")
    # apt's note that it downloads as root is no news; its errors are kept.
    if ! (
        cd "$partial" || exit
        if [[ -n $component ]]; then
            private_apt "$partial/apt" "$component" || exit
            configuration=(-c "$partial/apt/apt.conf")
        fi
        apt-get "${configuration[@]}" download -qq "${@/%/:arm64}" && rm -rf "$partial/apt" &&
            sha256sum -- *.deb >SHA256SUMS && echo "$*" >complete
    ) 2>"$partial/apt.log"; then
        cat "$partial/apt.log" >&2
        rm -rf "$partial"
        die "the download of $* failed; is the machine on the network, and arm64 among dpkg's architectures?"
    fi
    rm -rf "$directory" "$partial/apt.log"
    mv "$partial" "$directory"
    exec {lock}>&-
}

# deb_file DIRECTORY PATH: a file out of a package in $CACHE/DIRECTORY, on standard output.
deb_file() {
    local deb
    for deb in "$CACHE/$1"/*.deb; do
        if dpkg-deb --fsys-tarfile "$deb" | tar -xO "./$2" 2>/dev/null; then return; fi
    done
    die "there is no $2 in the packages of $CACHE/$1"
}
