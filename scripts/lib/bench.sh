# shellcheck shell=bash disable=SC2154 # $work, $quick are the script's
# The measurements of scripts/bench, which sources this: each appends lines "ROW FIGURE" to $work/HYPERVISOR.

# prepare: what the measurements need, in $work.
prepare() {
    "$ROOT/tests/scenarios/debian-xl" "$work/overlay"
    cp "$BUILD/payloads/bench" "$work/overlay/payload"
    "${CC:-cc}" -O2 -shared -fPIC -o "$work/count.so" "$ROOT/scripts/lib/count.c"
    mkdir -p "$work/overlay/mark" "$work/root/bin"
    for number in {0..9}; do marker "$number" >"$work/overlay/mark/$number"; done
    chmod +x "$work"/overlay/mark/*
    cp "$BUILD/debian/busybox" "$work/root/bin/"
    printf '#!/bin/busybox sh\necho "bench: init"\nexec busybox poweroff -f\n' >"$work/root/init"
    chmod +x "$work/root/init"
    pack "$work/root" >"$work/initrd"
}

# marker N: an arm64 program that makes mark N (`hint #64+N`) and ends: an ELF header, one segment, four instructions.
marker() {
    local word=$((0xd503281f | $1 << 5)) code
    code=$(printf '\\x%02x' $((word & 255)) $((word >> 8 & 255)) $((word >> 16 & 255)) $((word >> 24)))
    code+='\xa8\x0b\x80\xd2\x00\x00\x80\xd2\x01\x00\x00\xd4' # mov x8, #93; mov x0, #0; svc #0
    printf '\x7fELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\xb7\0\1\0\0\0\x78\0\x40\0\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
    printf '\0\0\0\0\x40\0\x38\0\1\0\0\0\0\0\0\0\1\0\0\0\5\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0\0'
    printf '\x88\0\0\0\0\0\0\0\x88\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0%b' "$code"
}

# in_dom0 LOG HYPERVISOR TOOLS PARTS [OPTION...]: runs parts of scripts/lib/bench-dom0.sh.
in_dom0() {
    local log=$work/$1 hypervisor=$2
    printf 'tools=%s parts="%s" many=%s\n' "$3" "$4" "${many:-0}" >"$work/overlay/bench.env"
    "${RUN[@]}" --hypervisor "$hypervisor" --exec "$ROOT/scripts/lib/bench-dom0.sh" --overlay "$work/overlay" --timeout 900 \
        "${@:5}" >"$log" 2>&1 || say "$hypervisor: $4 with the tools of $3 failed"
    ! grep -q '^bench: ' "$log" || grep -A 3 '^bench: ' "$log" >&2
}

# domu HYPERVISOR GIC TOOLS: what the bare-metal guest sees.
domu() {
    local log=$1-$2-$3.log
    in_dom0 "$log" "$1" "$3" payload --gic "$2" --mem "$MEM"
    grep -q '^payload: [0-9]* passed, 0 failed' "$work/$log" || { tail -n 15 "$work/$log" >&2; say "$1, GICv$2: the payload failed"; }
    # The rows that depend on the controller come from both runs, XenStore's from the runs with either tools, the others from
    # the first.
    tr -d '\r' <"$work/$log" | sed -n 's/^bench \([^ ]*\) \([0-9.]*\)$/\1 \2/p' | awk -v gic="$2" -v tools="$3" '
        tools == "ours" { if ($1 == "xenstore-read") print "xenstore-read-ours", $2; next }
        gic == 2 || $1 ~ /-v3$/' >>"$work/$1"
}

# footprint HYPERVISOR: the same program in dom0's place says what memory is left.
footprint() {
    "${RUN[@]}" --hypervisor "$1" --mem "$MEM" --kernel "$BUILD/payloads/bench" --dom0-append dom0 --initrd none \
        --until '^footprint' --timeout 300 >"$work/$1-footprint.log" 2>&1 || true
    sed -n 's/^footprint total \([0-9]*\) free \([0-9]*\) dom0 \([0-9]*\) pages.*$/\2 \3/p' "$work/$1-footprint.log" |
        awk -v mem="$MEM" '{ printf "footprint %.1f\n", mem - ($1 + $2) / 256 }' >>"$work/$1"
}

# creation HYPERVISOR TOOLS N: making a Debian guest, and the 10th, 50th … Nth domain.
creation() {
    many=$3 in_dom0 "$1-creation.log" "$1" "$2" "create many" --mem "$MEM" --qemu-arg -plugin --qemu-arg "$work/count.so"
    tr -d '\r' <"$work/$1-creation.log" | sed -n 's/.*count: //p' | awk '
        $1 == "mark" { at[$2] = $3; armed = $2 == 0 }
        $1 == "kernel" && armed { row("create", $2 - at[0]); armed = 0 }
        END {
            split("10 50 150", number, " ")
            for (i = 1; i <= 3; i++) if (2 * i in at) row("create-" number[i], at[2 * i] - at[2 * i - 1])
        }
        function row(name, count) { printf "%s %.1f\n", name, count / 1e6 }' >>"$work/$1"
}

# balloon HYPERVISOR: TLB invalidations while a gibibyte is taken from Linux and given back.
balloon() {
    in_dom0 "$1-balloon.log" "$1" debian balloon --mem 4096 --qemu-arg -plugin --qemu-arg "$work/count.so"
    tr -d '\r' <"$work/$1-balloon.log" | sed -n 's/.*count: mark //p' | awk '
        { at[$1] = $3 }
        END { if (9 in at) printf "tlbi-down %d\ntlbi-up %d\n", at[8] - at[7], at[9] - at[8] }' >>"$work/$1"
}

# boot HYPERVISOR: counts the instructions from reset until dom0's init has run and switched off. QEMU pauses at the
# switching off, and its monitor tells the count.
boot() {
    local command event count=""
    rm -f "$work"/monitor.*
    mkfifo "$work/monitor.in" "$work/monitor.out"
    command=$("${RUN[@]}" --hypervisor "$1" --mem "$MEM" --initrd "$work/initrd" --print \
        --qemu-arg -action --qemu-arg shutdown=pause \
        --qemu-arg -chardev --qemu-arg "pipe,id=monitor,path=$work/monitor" --qemu-arg -mon --qemu-arg chardev=monitor,mode=control)
    exec {to}<>"$work/monitor.in" {from}<>"$work/monitor.out"
    eval "timeout 300 $command" >"$work/$1-boot.log" 2>&1 </dev/null &
    qemu_pid=$!
    echo '{"execute":"qmp_capabilities"}' >&"$to"
    while read -r -t 300 event <&"$from"; do
        case $event in
        *'"SHUTDOWN"'*) echo '{"execute":"query-replay"}' >&"$to" ;;
        *'"icount"'*) count=${event#*'"icount": '} count=${count%%[!0-9]*}; break ;;
        esac
    done
    echo '{"execute":"quit"}' >&"$to"
    wait "$qemu_pid" || true
    qemu_pid=""
    exec {to}>&- {from}>&-
    if [[ -n $count ]] && grep -q "^bench: init" "$work/$1-boot.log"; then
        awk -v count="$count" 'BEGIN { printf "init %.1f\n", count / 1e6 }' >>"$work/$1"
    else
        tail -n 15 "$work/$1-boot.log" >&2
        say "$1: Linux did not reach init"
    fi
}
