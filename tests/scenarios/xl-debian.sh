# Debian's xl and ours, on either hypervisor: each says the same of it as the other, and sees what the other did.
#
# run: gic2: --overlay "$work/debian"
# timeout: 200
# host: "$SCENARIOS/debian-xl" "$work/debian"
# reject: ^FAIL
. /scenario.sh

debian() {
    program=$1
    shift
    /debian/lib/ld-linux-aarch64.so.1 --library-path /debian/lib "/debian/bin/$program" "$@"
}

# What changes from one moment to the next: which vCPU runs where, for how long, and how libxl lays out JSON.
steady() {
    sed -e 's/  *[r-][b-][p-][s-][c-][d-]  *[0-9.]*/ STATE/' \
        -e 's/  *[0-9-]*   [r-][b-][p-]  *[0-9.]*  / STATE /' \
        -e 's/[0-9]*:[0-9][0-9]:[0-9][0-9]$/UPTIME/' -e 's/^ [0-9:]* up *[0-9:]*/ UP/' \
        -e 's/"target_memkb":.*/TARGET/' -e 's/^ *//' -e '/^$/d' | tr -d '\n' | sed 's/{}/{ }/g; s/{ *}/{}/g'
}

# agree ARGUMENT...: both say this and end with the same status.
agree() {
    debian xl "$@" >/tmp/theirs 2>/tmp/complaint
    theirs=$?
    xl "$@" >/tmp/ours 2>>/tmp/complaint
    ours=$?
    steady </tmp/theirs >/tmp/theirs.steady
    steady </tmp/ours >/tmp/ours.steady
    if [ "$ours" = "$theirs" ] && cmp -s /tmp/ours.steady /tmp/theirs.steady; then
        echo "ok: both say: xl $*"
    else
        diff /tmp/theirs /tmp/ours
        cat /tmp/complaint
        fail "xl $*: status $ours, Debian's $theirs, or other words"
    fi
}

mkdir -p /var/lib/xenstored /var/lock
debian xenstored
sleep 1
debian xen-init-dom0 >/dev/null

for arguments in info "info -n" list "list -v" "list -Z -c -n" "list 0" "list Domain-0" "list nosuch" "list 7" "list -l" \
    vcpu-list "vcpu-list 0" "vcpu-list nosuch" uptime "uptime -s" "domid Domain-0" "domid nosuch" "domname 0" \
    "domname 5" "domname x" sched-credit2 "sched-credit2 -s" "sched-credit2 -d 0" cpupool-list "cpupool-list -c" \
    claims dmesg; do
    # shellcheck disable=SC2086 # words on purpose
    agree $arguments
done

last=$((smp - 1))
check "ours pins vCPU 0" xl vcpu-pin 0 0 "$last"
agree vcpu-list
check "Debian's pins all" debian xl vcpu-pin 0 all all 0
agree vcpu-list
check "ours undoes both" xl vcpu-pin 0 all all all
agree vcpu-list
check "no vCPU is pinned to a CPU that is not there" sh -c '! xl vcpu-pin 0 0 999'

check "Debian's sets a weight" debian xl sched-credit2 -d 0 -w 300
agree sched-credit2
check "ours sets it back" xl sched-credit2 -d 0 -w 256
agree sched-credit2 -d 0

check "ours sets a ceiling" xl mem-max 0 1200
agree list
check "dom0 cannot pause itself" sh -c '! xl pause 0'
agree list

check "Debian's sends a key" debian xl debug-keys h
check "ours finds its effect in the log" sh -c "xl dmesg | grep -q show"
xl dmesg -c >/dev/null
agree dmesg
finish
