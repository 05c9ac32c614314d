# The balancer on Debian's Xen, which promises no memory and watches no pages, and on Nacelle: memory goes from a guest that is
# not Linux to one that is, which grows beyond what it booted with, and back, also when the balancer is killed; no bound is
# broken; what the hypervisor lacks is said.
#
# run: xen: --icount --smp 1 --net none --mem 1G --dom0-mem 512M --overlay "$work/guests" --hypervisor xen
# run: nacelle: --icount --smp 1 --net none --mem 1G --dom0-mem 512M --overlay "$work/guests" --hypervisor nacelle
# timeout: 420
# host: mkdir -p "$work/guests" && cp "$BUILD/payloads/demand" "$work/guests/"
# reject: ^FAIL|panicked|DAMAGED
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/memory.sh
. /memory.sh

xencommons start
check "a broken bound would be seen" bounds_are_told
xl memory record /tmp/record &
lacks() { xl memory | grep -q "^Not on this hypervisor: $1"; }
lacks_not() { ! lacks "$1"; }
xl memory | grep '^Not on'
case $hypervisor in
xen) must=lacks ;;
*) must=lacks_not ;;
esac
check "targets: $must" $must targets
check "pages in use: $must" $must "which pages"

# Together they have all but a little of the host.
demand_guest plain memory=200 maxmem=200
check "linux starts" xl create -q /dev/null 'name="linux"' 'kernel="/boot/guest/vmlinuz"' 'ramdisk="/boot/guest/demo.cpio.gz"' \
    'extra="console=hvc0 quiet cma=0 -- memory-load"' memory=160 maxmem=320 memory_min=112
loads() { echo "$1 12" >"$(xenstore-read "/local/domain/$(xl domid linux)/console/tty")"; }
loaded() { [ "$(log linux | grep '^load: ' | tail -n 1)" = "load: holds $1 MiB" ]; }
is_ready() { log linux | grep -q 'load: ready'; }
wants plain 30
wait_for 120 is_ready || fail "linux does not come up: $(log linux | tail -n 5)"
for guest in plain linux; do wait_for 60 is_of $guest source agent || fail "$guest reports nothing: $(xl memory)"; done
# Nothing is taken from them in their first half minute.
sleep 30

# To the one that is Linux: what is free, and what the other one gives.
free=$(xl info | sed -n 's/^free_memory *: *//p')
filler=$((free - 48))
[ $filler -lt 16 ] || check "a filler of $filler MiB starts" xl create -q -p /dev/null 'name="filler"' 'kernel="/demand"' memory=$filler maxmem=$filler
loads 180
wait_for 60 loaded 180 || fail "linux does not hold 180 MiB: $(xl memory; log linux | tail -n 3)"
check "that is beyond its boot size" at_least linux 200
check "the other one gave" at_most plain 100
check "it is explained" sh -c 'xl memory explain linux | grep -q "^\*.*grow: "'
xl memory

# Back, while the balancer is killed.
loads 0
wants plain 150
kill -9 "$(cat /run/xen/xenmemd.pid)"
wait
check "the record until then keeps the bounds" bounds_held /tmp/record
xencommons start
wait_for 10 xl memory list >/dev/null || fail "the balancer does not come back"
wait_for 60 holds plain 150 || fail "plain does not get what linux does not need: $(xl memory)"
check "linux has its minimum" at_least linux 112
xl memory

# One that says nothing.
xl destroy filler 2>/dev/null
demand_guest silent maxmem=64 extra=demand.as=mute
case $hypervisor in
xen)
    sleep 10
    is "who tells of the one without an agent" "$(of silent source)" none
    is "what it has, in MiB" "$(mib silent assigned_kib)" 64
    ;;
*) wait_for 60 is_of silent source estimate || fail "nobody looks at the one without an agent: $(xl memory)" ;;
esac
is "domains below their minimum" "$(of_host minimum_violations)" 0
is "budgets beyond the memory" "$(of_host budget_violations)" 0
is "processes killed for lack of memory" "$(log linux | grep -c -e 'Out of memory' -e 'oom-kill')" 0
for guest in plain linux silent; do check "$guest ends" xl destroy $guest; done
finish
