# Guests that see more than they are granted: one that is not Linux goes to its target and back by its balloon, one that
# touches too much is stopped alone, and Debian is granted a sixteenth of its maximum.
#
# run: gic2: --mem 6G --overlay "$work/guests"
# timeout: 300
# host: mkdir -p "$work/guests" && cp "$BUILD/payloads/balloon" "$work/guests/balloon"
# reject: ^FAIL|panicked
. /scenario.sh

log() { cat "/var/log/xen/console/guest-$1.log" 2>/dev/null; }
said() { log "$1" | grep -q "$2"; }
# of NAME FIELD: a number of xl list --json.
of() { xl list --json "$1" | sed -n "s/^ *\"$2\": \([0-9]*\),*$/\1/p" | head -n 1; }

xencommons start
free=$(xl info | sed -n 's/^free_memory *: *//p')

# A guest that is not Linux, by the hypercall and its event.
check "a payload with a balloon starts" xl create -q /dev/null name=payload 'kernel="/balloon"' memory=64 maxmem=256
wait_for 20 said payload "Reached at 16384 pages" || fail "it does not reach 64 MiB: $(log payload | tail -n 2)"
check "it is given more" xl mem-set payload 200
wait_for 20 said payload "Reached at 51200 pages" || fail "it does not reach 200 MiB: $(log payload | tail -n 2)"
check "and less" xl mem-set payload 64
is "what it has in MiB" $(($(of payload current_memkb) / 1024)) 64
check "it ends" xl destroy payload

# One without a balloon, beside a guest that notices nothing.
check "a healthy guest starts" xl create -q /dev/null name=healthy 'kernel="/balloon"' memory=64 maxmem=64
check "one that touches too much starts" \
    xl create -q /dev/null name=greedy 'kernel="/balloon"' memory=64 maxmem=256 extra=balloon.touch on_crash=preserve
is_stopped() { xl list greedy | grep -q -- '--sc-'; }
wait_for 20 is_stopped || fail "it is not stopped: $(xl list greedy | tail -n 1)"
check "the message names the cause" sh -c 'xl dmesg | grep -q "stopped: it touched .* budget is used up.*raise memory="'
check "the other one runs" sh -c '! xl list healthy | grep -q -- "--sc-"'
check "both end" sh -c 'xl destroy greedy && xl destroy healthy'

# Debian's kernel with sixteen times what it is granted: it sees what it can give back from, the rest comes by hot-add.
memory_is() { has=$(($(of big current_memkb) / 1024)); [ "$has" -ge $(($1 - 2)) ] && [ "$has" -le $(($1 + 2)) ]; }
check "Debian with much more to come starts" xl create -q /etc/xen/demo.cfg name=big memory=256 maxmem=4096
wait_for 120 said big 'login:' || fail "it does not come up: $(log big | tail -n 2)"
wait_for 60 memory_is 256 || fail "it has $has MiB, not 256"
check "it grows beyond what it saw" xl mem-set big 3328
wait_for 120 memory_is 3328 || fail "it has $has MiB, not 3328"
check "it shrinks" xl mem-set big 512
wait_for 120 memory_is 512 || fail "it has $has MiB, not 512"
check "it ends" xl destroy big

is_free() { [ "$(xl info | sed -n 's/^free_memory *: *//p')" = "$free" ]; }
wait_for 20 is_free || fail "memory is missing: $(xl info | grep free_memory), $free before"
finish
