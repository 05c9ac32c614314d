# Domains made and taken away by our tools, on either hypervisor: what cannot start is refused, what ends is followed by what the
# configuration says, and nothing is left when a tool is killed on the way.
#
# run: gic2:
# run: gic3: --gic 3
# timeout: 700
# reject: ^FAIL
. /scenario.sh

xencommons start
free() { xl info | sed -n 's/^free_memory *: *//p'; }
nodes() { xenstore-ls -f / | wc -l; }
column() { xl list "$1" 2>/dev/null | awk -v column="$2" 'NR == 2 { print $column }'; }
domains() { xl list | awk 'NR > 2 { print $1 }' | sort | tr '\n' ' '; }
# only NAME...: there is no domain but these, or less.
# shellcheck disable=SC2120 # wait_for passes them
only() {
    for found in $(domains); do
        case " $* " in *" $found "*) ;; *) return 1 ;; esac
    done
}
free_is() { [ "$(free)" = "$1" ]; }
is_there() { [ -n "$(column "$1" 1)" ]; }
is_gone() { ! is_there "$1"; }
state_has() { column "$1" 5 | grep -q "$2"; }

# A guest that ends as its command line says.
mkdir /tmp/guest
cat >/tmp/guest/local.sh <<'EOF'
for word in $(cat /proc/cmdline); do
    case $word in
    end=poweroff) poweroff -f ;;
    end=reboot) reboot -f ;;
    esac
done
EOF
(cd /tmp/guest && chmod +x local.sh && find . | cpio -o -H newc 2>/dev/null | gzip -1) >/tmp/local.gz
cat /boot/guest/demo.cpio.gz /tmp/local.gz >/tmp/ramdisk
make() {
    name=$1
    shift
    xl create -q /etc/xen/demo.cfg "name=$name" ramdisk=/tmp/ramdisk memory=128 maxmem=128 "$@"
}

# The first domain makes nodes that stay, as /vm.
check "a domain is made" make first -p
check "and taken away" xl destroy first
# Its last pages come back when xenconsoled has let go of its console.
is_quiet() { before=$(free) && sleep 2 && free_is "$before"; }
wait_for 20 is_quiet || fail "free memory does not come to rest: $(free) MiB"
before_nodes=$(nodes)

# refused WHAT EXPECTED ARGUMENT...: no domain, and a message with that in it.
refused() {
    what=$1 expected=$2
    shift 2
    if make wrong "$@" >/tmp/complaint 2>&1; then
        fail "$what starts"
        xl destroy wrong
    else
        check "$what is refused: $(head -n 1 /tmp/complaint)" grep -q -- "$expected" /tmp/complaint
    fi
}
echo "this is no kernel" >/tmp/text
: >/tmp/empty
head -c 20000000 /boot/guest/vmlinuz >/tmp/short
{ head -c 514 /dev/zero; printf HdrS; head -c 4000 /dev/zero; } >/tmp/bzimage
head -c 4000000 /boot/guest/vmlinuz | gzip -1 | head -c 300000 >/tmp/short.gz
refused "text" "it is text" kernel=/tmp/text
refused "an empty file" "empty" kernel=/tmp/empty
refused "half a kernel" "cut off" kernel=/tmp/short
refused "half a packed kernel" "cut off" kernel=/tmp/short.gz
refused "a kernel for x86" "x86" kernel=/tmp/bzimage
refused "a kernel that is not there" "cannot read" kernel=/nowhere
refused "too little memory for the kernel" "raise memory=" memory=20
refused "more memory than there is" "MiB are free" memory=60000 maxmem=60000
refused "a pool that is not there" "no CPU pool" pool='"nosuch"'
is "the memory that is free after refusals" "$(free)" "$before"

gzip -1 -c /boot/guest/vmlinuz >/tmp/vmlinuz.gz
check "a packed kernel is made a domain" make packed kernel=/tmp/vmlinuz.gz extra='"console=hvc0 quiet end=poweroff"'
wait_for 90 is_gone packed || fail "it does not power off"
check "a domain that reboots is made" make again extra='"console=hvc0 quiet end=reboot"'
first=$(xl domid again)
wait_for 90 sh -c "[ \"\$(xl domid again 2>/dev/null || echo $first)\" -gt $first ]" || fail "it is not made anew"
wait_for 30 xl destroy again || fail "it cannot be destroyed"
check "one that is to stay is made" make stays extra='"console=hvc0 quiet end=reboot"' on_reboot='"preserve"'
wait_for 90 state_has stays s || fail "it is $(column stays 5)"
check "it stays for a look" is_there stays
check "until it is destroyed" xl destroy stays
check "another one is made" make named extra='"console=hvc0 quiet end=reboot"' on_reboot='"rename-restart"'
wait_for 90 sh -c 'xl list | grep -q "^named-"' || fail "it does not leave its old self: $(domains)"
# It may be between two lives when all others go.
take_all() {
    for name in $(domains); do xl destroy "$name" 2>/dev/null; done
    sleep 6
    # shellcheck disable=SC2119
    only
}
wait_for 10 take_all || fail "these are left: $(domains)"
wait_for 20 free_is "$before" || fail "memory is missing: $(free), $before before"
is "the nodes in XenStore" "$(nodes)" "$before_nodes"

# Killed on the way: by itself, and with the process that watches it.
for delay in 1 4 7 11 16 22 40; do
    xl create -q /etc/xen/demo.cfg name=killed memory=128 maxmem=128 2>/dev/null &
    maker=$!
    usleep "${delay}0000"
    kill -9 "$maker" 2>/dev/null && echo "killed after ${delay}0 ms: $(domains)"
    [ $((delay % 2)) = 1 ] || pkill -9 -f "xl supervise killed"
    wait "$maker" 2>/dev/null
    # It may have been complete already. Otherwise who watches it, or the next command, takes it away.
    wait_for 30 only killed || fail "half a domain is there: $(xl list)"
    is_gone killed || xl destroy killed
done
xl list >/dev/null
wait_for 20 free_is "$before" || fail "memory is missing: $(free), $before before"
is "the nodes in XenStore" "$(nodes)" "$before_nodes"
is "what is unfinished" "$(ls /run/xen/unfinished)" gate
kept=$(find /var/lib/xen -name "userdata-*" ! -name "*-d.0.*")
is "what is kept of domains" "$kept" ""
finish
