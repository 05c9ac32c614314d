# The balancer with Debian guests: the demonstration that users start, then how soon memory is there after a demand has risen:
# after a stall, after the report of each second, from free memory and from a donor; an agent that dies; no balloon. By
# instructions: a nanosecond is one, and waiting takes no time.
#
# run: gic2: --icount --smp 1 --net none --mem 2G --dom0-mem 1100M --overlay "$work/guests"
# hypervisors: nacelle
# timeout: 420
# host: mkdir "$work/guests" && dpkg-deb --fsys-tarfile "$CACHE"/debs/linux-image-*.deb | tar -x -C "$work/guests" --wildcards --transform 's|.*/|modules/|' '*/zram.ko' '*/zsmalloc.ko'
# reject: ^FAIL|panicked
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/memory.sh
. /memory.sh

xencommons start
check "the demonstration" env HOLD=4 memory-demo /tmp
check "its record keeps the bounds" bounds_held /tmp/memory-demo.record
check "its picture is whole" sh -c "tail -n 1 /tmp/memory-demo.svg | grep -q '</svg>'"

# Guests that swap: to compressed memory, so that one which takes more than it has waits instead of ending. What they hold is
# what dom0 types: one dd that fills a buffer of so many MiB and cannot write it anywhere.
mkdir -p /tmp/guest
cp /modules/*.ko /tmp/guest/
cat >/tmp/guest/local.sh <<'EOF'
insmod /zsmalloc.ko
insmod /zram.ko
echo 512M >/sys/block/zram0/disksize
mkswap /dev/zram0 >/dev/null
swapon /dev/zram0
mkfifo /tmp/held
exec 3<>/tmp/held </dev/hvc0 >/dev/hvc0
holder=""
echo "load: ready"
while read -r word mib; do
    case $word in
    hold)
        [ -z "$holder" ] || kill -9 "$holder"
        dd if=/dev/zero of=/tmp/held bs="${mib}M" count=1 2>/dev/null 3>&- &
        holder=$!
        ;;
    agent) grep "^Rss" "/proc/$(pidof xen-memory-agent)/smaps_rollup" ;;
    die) killall -9 xen-memory-agent ;;
    esac
done
EOF
(cd /tmp/guest && find . | cpio -o -H newc 2>/dev/null | gzip -1) >/tmp/local.gz
cat /boot/guest/demo.cpio.gz /tmp/local.gz >/tmp/ramdisk
# linux_guest NAME OPTION...
linux_guest() {
    name=$1
    shift
    check "$name starts" xl create -q /dev/null "name=\"$name\"" 'kernel="/boot/guest/vmlinuz"' 'ramdisk="/tmp/ramdisk"' \
        vcpus=1 memory=176 maxmem=512 memory_min=112 memory_policy=1 'extra="console=hvc0 quiet cma=0"' "$@"
}
is_ready() { log "$1" | grep -q 'load: ready'; }
tells() { echo "$2" >"$(xenstore-read "/local/domain/$(xl domid "$1")/console/tty")"; }
# uptime_ms: dom0's, to a hundredth of a second.
uptime_ms() {
    read -r seconds _ </proc/uptime
    echo "${seconds%.*}${seconds#*.}0"
}
# targets NAME...: their nodes.
targets() { for name in "$@"; do echo "/local/domain/$(xl domid "$name")/memory/target"; done; }
# step NAME MIB [DONOR]: it holds that from now on. Sets $decided: the time until a target was written, its own or the donor's, in ms.
step() {
    had=$(mib "$1" assigned_kib)
    nodes=$(targets "$1" ${3:+"$3"})
    # A watch tells once at its start.
    # shellcheck disable=SC2086 # a list
    xenstore-watch -n $(($(echo "$nodes" | wc -l) + 1)) $nodes >/dev/null &
    watch=$!
    sleep 1
    start=$(uptime_ms)
    tells "$1" "hold $2"
    wait $watch
    written=$(uptime_ms)
    decided=$((written - start))
}
# arrives NAME MIB: waits until it has so many more than before the step. Sets $there: how long that took since the decision.
arrives() {
    until at_least "$1" $((had + $2)) || [ $(($(uptime_ms) - written)) -gt 20000 ]; do :; done
    there=$(($(uptime_ms) - written))
}

linux_guest stalls memory_weight=6666
linux_guest light memory_weight=3333
linux_guest plain 'extra="console=hvc0 quiet cma=0 psi=0"'
linux_guest still memory=160 maxmem=160 'extra="console=hvc0 quiet cma=0 initcall_blacklist=balloon_init"'
for guest in stalls light plain still; do wait_for 60 is_ready $guest || fail "$guest does not come up: $(log $guest | tail -n 5)"; done
sleep 40
wait_for 60 is_of still is_stuck true || fail "that one has no balloon is not noticed: $(xl memory)"
sleep 10
xl memory

# A kernel that counts no stalls: the report of each second tells.
for phase in 100000 400000 700000; do
    usleep $phase
    step plain 60
    echo "reported: a target after $decided ms"
    check "that is within 1.2 seconds" [ $decided -lt 1200 ]
    tells plain "hold 0"
    sleep 60
done

# One that tells of stalls, while there is memory, whenever in the second between two reports it begins. Where a report comes
# first, it does not stall.
told=$(of stalls stalls)
for phase in 100000 400000 700000; do
    usleep $phase
    step stalls 256
    arrives stalls 256
    echo "stalled: a target after $decided ms, 256 MiB of free memory $there ms later"
    check "a target within 0.3 seconds" [ $decided -lt 300 ]
    check "256 MiB within a second" [ $there -lt 1000 ]
    tells stalls "hold 0"
    wait_for 400 at_most stalls 140 || fail "stalls does not shrink: $(xl memory)"
    wait_for 60 at_rest || fail "targets change though nothing else does: $(xl memory)"
done
check "stalls were told of" [ "$(of stalls stalls)" -gt "$told" ]
is "stalls that a kernel told of which counts none" "$(of plain stalls)" 0

# While there is none: all that is free is somebody's, and plain has more than it needs.
tells plain "hold 300"
wait_for 30 at_least plain 360 || fail "plain does not get 360 MiB: $(xl memory)"
free=$(xl info | sed -n 's/^free_memory *: *//p')
filler=$((free - 24))
# What is less than the kernel needs to lie in is little enough.
if [ $filler -ge 40 ]; then
    check "a filler of $filler MiB starts" xl create -q -p /dev/null 'name="filler"' 'kernel="/boot/guest/vmlinuz"' memory=$filler maxmem=$filler
fi
tells plain "hold 0"
sleep 3
step stalls 256 plain
arrives stalls 256
echo "a donor: a target after $decided ms, 256 MiB $there ms later"
check "a target within 0.3 seconds, with a donor" [ $decided -lt 300 ]
check "256 MiB from a donor within two seconds" [ $there -lt 2000 ]
xl memory

# More than there is: the heavier one gets more, though the lighter one asks first. What sleeps in swap is no need for long, so
# that how much more is by chance.
[ $filler -lt 40 ] || check "the filler ends" xl destroy filler
for guest in light stalls; do tells $guest "hold 480"; done
sleep 10
heavy=$(($(mib stalls assigned_kib) - 112)) light=$(($(mib light assigned_kib) - 112))
echo "weights 2 : 1 have $heavy and $light MiB above their minimum"
check "the heavier one has more" [ $heavy -gt $light ]
xl memory

# The agent: what it has itself; and one that dies.
tells plain agent
resident() { log plain | sed -n 's/^Rss:[^0-9]*\([0-9]*\) kB$/\1/p'; }
is_told() { [ -n "$(resident)" ]; }
wait_for 10 is_told
between "what an agent has in memory, in KiB," "$(resident)" 100 2047
tells plain die
wait_for 30 is_of plain source stale || fail "the dead agent is not noticed: $(xl memory)"
frozen=$(mib plain target_kib)
sleep 10
is "the one without an agent is frozen at" "$(mib plain target_kib)" "$frozen"
is "what the one without a balloon has" "$(mib still assigned_kib)" 160

is "processes killed for lack of memory" "$(cat /var/log/xen/console/guest-*.log | grep -c -e 'Out of memory' -e 'oom-kill')" 0
is "minimum violated" "$(of_host minimum_violations)" 0
is "budget violated" "$(of_host budget_violations)" 0
finish
