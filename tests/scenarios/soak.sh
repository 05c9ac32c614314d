# SOAK_SECONDS of timers, disk, network and interrupts between CPUs at once: nothing stalls, nothing is lost.
#
# run: gic2: --gic 2 --smp 2 --disk "$work/disk" --timeout $((${SOAK_SECONDS:-40} + 90))
# run: gic3: --gic 3 --smp 4 --disk "$work/disk" --timeout $((${SOAK_SECONDS:-40} + 90))
# alone: no stall is allowed
# host: truncate -s 64M "$work/disk"
# reject: ^FAIL
. /scenario.sh

leased() { ip -4 addr show eth0 | grep -q 'inet 10\.0\.2\.'; }
check "DHCP gives an address" wait_for 30 leased
mkdir -p /tmp/soak

# Each worker writes how far it has come; each must have come further by every sample.
#
# A pinned sleeper: its CPU's timer. One lost and it sleeps for ever.
sleeper() {
    n=0
    while :; do
        usleep 10000
        n=$((n + 1))
        echo $n >"/tmp/soak/sleeper-$1"
    done
}
# Two pinned ends of a pair of pipes: each byte wakes the other CPU by an interrupt from this one.
ponger() { while read -r n; do echo "$n"; done <"/tmp/there-$1" >"/tmp/back-$1"; }
pinger() {
    exec 3>"/tmp/there-$1" 4<"/tmp/back-$1"
    n=0
    while :; do
        n=$((n + 1))
        echo $n >&3
        # The other end is gone when the workers are stopped; before that, standing still tells.
        read -r answer <&4 || exit
        [ "$answer" = "$n" ] || echo "FAIL: sent $n, received $answer"
        echo "$n" >"/tmp/soak/pinger-$1"
    done
}
disk_worker() {
    n=0
    while :; do
        dd if=/dev/urandom of=/tmp/block bs=64k count=4 2>/dev/null
        dd if=/tmp/block of=/dev/vda bs=64k seek=$((n % 200 * 4)) oflag=direct 2>/dev/null || echo "FAIL: disk write $n"
        dd if=/dev/vda of=/tmp/back bs=64k skip=$((n % 200 * 4)) count=4 iflag=direct 2>/dev/null || echo "FAIL: disk read $n"
        cmp /tmp/block /tmp/back || echo "FAIL: the disk gave other bytes back in round $n"
        n=$((n + 1))
        echo $n >/tmp/soak/disk
    done
}
network_worker() {
    n=0
    while :; do
        ping -q -c 1 -W 10 10.0.2.2 >/dev/null || echo "FAIL: ping $n had no answer in ten seconds"
        n=$((n + 1))
        echo $n >/tmp/soak/network
    done
}
pin() { taskset -p "$(printf %x $((1 << $1)))" "$2" >/dev/null; }

workers="" pids=""
start() {
    "$@" &
    pids="$pids $!"
}
cpu=0
while [ "$cpu" -lt "$smp" ]; do
    next=$(((cpu + 1) % smp))
    start sleeper $cpu
    pin $cpu $!
    workers="$workers sleeper-$cpu pinger-$cpu"
    mkfifo /tmp/there-$cpu /tmp/back-$cpu
    start ponger $cpu
    pin $next $!
    start pinger $cpu
    pin $cpu $!
    cpu=$((cpu + 1))
done
start disk_worker
start network_worker
workers="$workers disk network"

# The interrupts that each CPU's timer has raised, one number a CPU.
timer_ticks() { sed -n 's/^ *[0-9]*: *\([0-9 ]*[0-9]\) .*arch_timer.*/\1/p' /proc/interrupts; }
# Between truncation and writing the file is empty: read again. By cat, which reads all at once: the shell's `read` takes
# byte by byte and would join the beginning of one number to the end of the next.
progress() {
    n=""
    [ ! -e "/tmp/soak/$1" ] || while [ -z "$n" ]; do n=$(cat "/tmp/soak/$1"); done
    echo "${n:-0}"
}

for worker in $workers; do echo 0 >"/tmp/seen-$worker"; done
ticks=$(timer_ticks)
read -r started _ </proc/uptime
started=${started%.*}
while read -r now _ </proc/uptime && [ $((${now%.*} - started)) -lt "$SOAK_SECONDS" ]; do
    sleep 10
    for worker in $workers; do
        n=$(progress "$worker")
        [ "$n" -gt "$(cat "/tmp/seen-$worker")" ] || fail "$worker has stood still at $n for ten seconds, $now s after boot"
        echo "$n" >"/tmp/seen-$worker"
    done
    ticks_now=$(timer_ticks)
    was=$ticks
    for count in $ticks_now; do
        set -- $was
        [ "$count" -gt "$1" ] || fail "a CPU's timer raised nothing for ten seconds, $now s after boot: $ticks, then $ticks_now"
        shift
        was=$*
    done
    ticks=$ticks_now
done
for worker in $workers; do echo "$worker: $(progress "$worker")"; done
# shellcheck disable=SC2086 # a list
kill $pids
cat /proc/interrupts

no_new_warnings
finish
