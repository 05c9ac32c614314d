# shellcheck shell=sh
# What scripts/bench runs in dom0. /bench.env says with whose tools ($tools: debian or ours) and which parts ($parts);
# /mark/N is a program that makes mark N in the count (scripts/lib/count.c).
tools="" parts="" many=0
# shellcheck source=/dev/null
. /bench.env

theirs() {
    program=$1
    shift
    /debian/lib/ld-linux-aarch64.so.1 --library-path /debian/lib "/debian/bin/$program" "$@"
}
run_xl() { if [ "$tools" = debian ]; then theirs xl "$@"; else xl "$@"; fi; }

logs=/var/log/xen/console
mkdir -p /var/lib/xenstored /var/lock $logs
: >/etc/xen/xl.conf
if [ "$tools" = debian ]; then
    xencommons stop
    theirs xenstored
    sleep 1
    theirs xen-init-dom0 >/dev/null
    theirs xenconsoled --log=guest --log-dir=$logs
else
    xencommons start
fi

# wait_for SECONDS FILE REGEX
wait_for() {
    for _ in $(seq "$1"); do
        ! grep -q "$3" "$2" 2>/dev/null || return 0
        sleep 1
    done
    echo "bench: $2 never said $3"
    tail -n 3 "$2"
    return 1
}

# The bare-metal guest: what it prints, when it has ended.
payload() {
    printf 'name="bench"\nkernel="/payload"\nmemory=64\nvcpus=1\nacpi=0\n' >/tmp/bench.cfg
    run_xl create -q /tmp/bench.cfg
    wait_for 120 $logs/guest-bench.log '^payload:'
    cat $logs/guest-bench.log
}

# Debian as a guest, from the command to its kernel's first instruction: mark 0, and the kernel's own.
create() {
    printf 'name="debian"\nkernel="/boot/guest/vmlinuz"\nramdisk="/boot/guest/demo.cpio.gz"\nmemory=256\nvcpus=1\nacpi=0\n' \
        >/tmp/debian.cfg
    sleep 5
    /mark/0
    run_xl create -q /tmp/debian.cfg
    sleep 1
    run_xl destroy debian
}

# The tenth, fiftieth, last domain: marks 1 and 2, 3 and 4, 5 and 6 around their making.
many() {
    printf 'kernel="/payload"\nmemory=8\nvcpus=1\nacpi=0\n' >/tmp/many.cfg
    mark=1
    for number in $(seq "$many"); do
        case $number in
        10 | 50 | 150)
            sleep 2
            "/mark/$mark"
            run_xl create -q -p /tmp/many.cfg "name=\"n$number\""
            "/mark/$((mark + 1))"
            mark=$((mark + 2))
            ;;
        *) run_xl create -q -p /tmp/many.cfg "name=\"n$number\"" ;;
        esac
    done
}

# A gibibyte taken from Debian and given back: marks 7, 8 and 9.
balloon() {
    printf 'name="big"\nkernel="/boot/guest/vmlinuz"\nramdisk="/boot/guest/demo.cpio.gz"\nmemory=1280\nvcpus=1\nacpi=0\nextra="console=hvc0"\n' \
        >/tmp/big.cfg
    run_xl create -q /tmp/big.cfg
    wait_for 60 $logs/guest-big.log 'login:'
    sleep 2
    /mark/7
    resize 256
    /mark/8
    resize 1280
    /mark/9
}

# resize MIB: sets the target of the guest `big`, as any tool does, and waits until it is reached.
resize() {
    id=$(run_xl domid big)
    xenstore-write "/local/domain/$id/memory/target" $(($1 * 1024))
    for _ in $(seq 120); do
        [ "$(run_xl list big | awk 'NR == 2 { print $3 }')" != "$1" ] || return 0
        sleep 1
    done
    echo "bench: big is not at $1 MiB"
    run_xl list
}

for part in $parts; do "$part"; done
