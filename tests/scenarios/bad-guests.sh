# What is wrong with a guest or its config is said, with the way out, and leaves nothing; nor does a tool that is killed at
# any moment.
#
# run: gic2: --gic 2
# timeout: 900
# reject: ^FAIL
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/guest.sh
. /guest.sh
# shellcheck source=tests/scenarios/dom0/half.sh
. /half.sh

free=$(free_memory)

# refused WHAT REGEX COMMAND...: it fails, quickly, and says so.
refused() {
    what=$1 words=$2
    shift 2
    if timeout 60 "$@" >/tmp/said 2>&1; then
        fail "$what: accepted"
    elif grep -qiE -- "$words" /tmp/said; then
        echo "ok: $what: $(tr '\n' ' ' </tmp/said | cut -c1-300)"
    else
        fail "$what: said is only: $(cat /tmp/said)"
    fi
}

printf 'name = "typo"\nkernel = "/boot/guest/vmlinuz"\n  memroy = 256\n' >/tmp/typo.cfg
refused "a key with a typo: line and column" "typo.cfg:3:3" xl create /tmp/typo.cfg
refused "and what was meant" "did you mean .?memory" xl create /tmp/typo.cfg
printf 'name = "typo"\nmemory = 256 256\n' >/tmp/syntax.cfg
refused "what is no config" "syntax.cfg:2:14" xl create /tmp/syntax.cfg
refused "no such config" "nosuch.cfg" xl create /tmp/nosuch.cfg
refused "no such kernel" "/nosuch" xl create /etc/xen/demo.cfg kernel=/nosuch
refused "a kernel that is none" "not a kernel for arm64" xl create /etc/xen/demo.cfg kernel=/etc/xen/demo.cfg
refused "a program that is no kernel" "linked for address" xl create /etc/xen/demo.cfg kernel=/bin/sh
head -c 1000000 /boot/guest/vmlinuz >/tmp/cut
refused "a kernel that is cut off" "cut off" xl create /etc/xen/demo.cfg kernel=/tmp/cut
refused "no such ramdisk" "/nosuch" xl create /etc/xen/demo.cfg ramdisk=/nosuch
refused "more memory than is free" "60000 MiB.* free" xl create /etc/xen/demo.cfg memory=60000 maxmem=60000
refused "too little for its kernel" "the domain has 16: raise memory=" xl create /etc/xen/demo.cfg memory=16 maxmem=16
nothing_left "$free" || fail "after refusals are left: $(what_is_left)"

check "a guest" xl create -q /etc/xen/demo.cfg
refused "a name in use" "demo" xl create /etc/xen/demo.cfg
wait_for 120 is_up demo || fail "it does not come up"
refused "less than it can give" "was asked to have 8 MiB and has" xl mem-set demo 8
refused "more than it may have" "raise that first: xl mem-max" xl mem-set demo 4096
refused "a domain that is none" "nosuch" xl mem-set nosuch 128
check "destroyed" xl destroy demo
wait_for 20 nothing_left "$free" || fail "left are: $(what_is_left)"

# Creation takes about this long; it is killed at thirty moments of it, and whatever comes next finds nothing.
xl create -q /etc/xen/demo.cfg
xl destroy demo
read -r from _ </proc/uptime
xl create -q /etc/xen/demo.cfg
read -r to _ </proc/uptime
xl destroy demo
took=$((${to%.*}${to#*.} - ${from%.*}${from#*.}))
wait_for 20 nothing_left "$free" || fail "left are: $(what_is_left)"
echo "creation takes $took hundredths of a second"
n=0
while [ $n -lt 30 ]; do
    xl create -q /etc/xen/demo.cfg >/dev/null 2>&1 &
    pid=$!
    usleep $((took * 10000 * n / 30))
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    # It was done before that, or the next command tidies up.
    xl list >/dev/null
    [ -z "$(xl domid demo 2>/dev/null)" ] || xl destroy demo
    wait_for 10 nothing_left "$free" || fail "killed at $n/30, left are: $(what_is_left)"
    n=$((n + 1))
done

# The same for the daemons, one after the other, while guests are made.
for daemon in xenstored xenconsoled; do
    n=0
    while [ $n -lt 5 ]; do
        xl create -q /etc/xen/demo.cfg >/tmp/said 2>&1 &
        pid=$!
        usleep $((took * 10000 * n / 5))
        kill -9 "$(cat /run/xen/$daemon.pid)"
        check "xencommons sees that $daemon is dead" sh -c "! xencommons status | grep -q '$daemon runs'"
        xencommons start 2>/dev/null
        wait $pid
        xl list >/dev/null
        [ -z "$(xl domid demo 2>/dev/null)" ] || xl destroy demo
        wait_for 10 nothing_left "$free" || fail "$daemon killed at $n/5, left are: $(what_is_left)"
        n=$((n + 1))
    done
done

xencommons stop
refused "no xenstored" "xenstored" xl create /etc/xen/demo.cfg
xencommons start
check "all is well" xl create -q /etc/xen/demo.cfg
wait_for 120 is_up demo || fail "the last guest does not come up"
check "it shuts down" xl shutdown -w demo
wait_for 20 nothing_left "$free" || fail "left are: $(what_is_left)"
finish
