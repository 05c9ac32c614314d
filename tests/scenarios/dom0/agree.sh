# shellcheck shell=sh
# For scenarios that have Debian's toolstack in /debian: `debian PROGRAM ARGUMENT...` runs it, `agree ARGUMENT...` compares xl's answers.

debian() {
    program=$1
    shift
    /debian/lib/ld-linux-aarch64.so.1 --library-path /debian/lib "/debian/bin/$program" "$@"
}

# What changes from one moment to the next: which vCPU runs where, for how long, and how libxl lays out JSON.
steady() {
    sed -e 's/  *[r-][b-][p-][s-][rscwS-][d-]  *[0-9.]*/ STATE/' \
        -e 's/  *[0-9-]*   [r-][b-][p-]  *[0-9.]*  / STATE /' \
        -e 's/[0-9]*:[0-9][0-9]:[0-9][0-9]$/UPTIME/' -e 's/^ [0-9:]* up *[0-9:]*/ UP/' \
        -e 's/"target_memkb": 104857[0-9],/TARGET/' -e 's/^ *//' -e '/^$/d' | tr -d '\n' | sed 's/{}/{ }/g; s/{ *}/{}/g'
}

# agree ARGUMENT...: both say this and end with the same status. They are asked one after the other, so a domain that changes
# in between is asked about again.
agree() {
    for _ in 1 2 3; do
        both_say "$@" && break
        sleep 1
    done
    if [ "$ours" = "$theirs" ] && cmp -s /tmp/ours.steady /tmp/theirs.steady; then
        echo "ok: both say: xl $*"
    else
        diff /tmp/theirs /tmp/ours
        cat /tmp/complaint
        fail "xl $*: status $ours, Debian's $theirs, or other words"
    fi
}
both_say() {
    debian xl "$@" >/tmp/theirs 2>/tmp/complaint
    theirs=$?
    xl "$@" >/tmp/ours 2>>/tmp/complaint
    ours=$?
    steady </tmp/theirs >/tmp/theirs.steady
    steady </tmp/ours >/tmp/ours.steady
    [ "$ours" = "$theirs" ] && cmp -s /tmp/ours.steady /tmp/theirs.steady
}
