# shellcheck shell=sh
# What the scenarios' scripts share in dom0: checks that go on after a failure, and the settings of the run.
# shellcheck source=/dev/null
. /scenario.env
failures=0

fail() {
    echo "FAIL: $*"
    failures=$((failures + 1))
}

# check WHAT COMMAND...: the command must succeed.
check() {
    what=$1
    shift
    if "$@"; then echo "ok: $what"; else fail "$what ($*)"; fi
}

# is WHAT ACTUAL EXPECTED
is() {
    if [ "$2" = "$3" ]; then echo "ok: $1 is $3"; else fail "$1 is '$2', not '$3'"; fi
}

# between WHAT VALUE LOW HIGH
between() {
    if [ "$2" -ge "$3" ] && [ "$2" -le "$4" ]; then echo "ok: $1 is $2"; else fail "$1 is $2, not $3 to $4"; fi
}

# wait_for SECONDS COMMAND...: tries it until it succeeds.
wait_for() {
    left=$1
    shift
    until "$@"; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 1
    done
}

# no_new_warnings: the kernel has said nothing at warning level or above that it does not say on Debian's Xen too.
no_new_warnings() {
    new=$(dmesg -r | grep '^<[0-4]>' | sed 's/^<[0-9]*>\[[^]]*\] //' | grep -vEf /known-warnings)
    if [ -z "$new" ]; then echo "ok: no new kernel warnings"; else fail "new kernel warnings: $new"; fi
}

# busy CPU SECONDS: keeps one CPU busy, in the background.
busy() { taskset "$(printf %x $((1 << $1)))" timeout "$2" sh -c 'while :; do :; done' & }

finish() {
    [ "$failures" -eq 0 ] || exit 1
    exit 0
}
