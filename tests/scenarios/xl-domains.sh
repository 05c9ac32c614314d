# Domains made by Debian's xl and by ours, side by side: each shows them as the other does, and acts on the other's.
#
# run: gic2: --overlay "$work/debian"
# run: gic3-smp4: --gic 3 --smp 4 --overlay "$work/debian"
# timeout: 900
# host: "$SCENARIOS/debian-xl" "$work/debian"
# reject: ^FAIL
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/guest.sh
. /guest.sh

vcpus_are() { [ "$(column "$1" 4)" = "$2" ]; }
is_later_than() { [ "$(xl domid "$1")" -gt "$2" ]; }

xencommons start
free=$(free_memory)

check "Debian's makes a domain" debian xl create -q /etc/xen/demo.cfg 'name="theirs"' memory=256 maxmem=256
check "ours makes a domain" xl create -q /etc/xen/demo.cfg name=ours memory=256 maxmem=256 vcpus=2
check "ours makes one that is paused" xl create -q -p /etc/xen/demo.cfg name=paused memory=64 maxmem=64 maxvcpus=2
wait_for 180 can theirs reboot || fail "the domain of Debian's does not come up"
wait_for 180 can ours reboot || fail "our domain does not come up"

for arguments in list "list -v" "list -Z -c -n" "list ours" "list theirs" "list -l theirs" "list -l ours" "list -l paused" \
    vcpu-list "vcpu-list paused" uptime "uptime -s" "uptime ours" "domid ours" "domid theirs" "domname 1" "domname 2" vm-list \
    sched-credit2 "sched-credit2 -d ours" cpupool-list claims "rename ours theirs" "rename nosuch x" "mem-set nosuch 64" \
    "mem-set ours lots" "mem-max ours 1" "vcpu-set ours 9" "vcpu-set ours x" "vcpu-set ours 0" "trigger ours bogus" shutdown "shutdown nosuch" "reboot 99" "destroy nosuch" "destroy 99" "destroy 0" "create /nosuch" create \
    "config-update nosuch /etc/xen/demo.cfg"; do
    # shellcheck disable=SC2086 # words on purpose
    agree $arguments
done

xl create -n -q /etc/xen/demo.cfg uuid=00000000-0000-4000-8000-000000000001 >/tmp/ours
debian xl create -n -q /etc/xen/demo.cfg 'uuid="00000000-0000-4000-8000-000000000001"' >/tmp/theirs
is "what both would create" "$(steady </tmp/ours)" "$(steady </tmp/theirs)"
check "a typo is refused" sh -c '! xl create -n -q /etc/xen/demo.cfg memroy=5 2>/tmp/complaint'
check "with the key that was meant" grep -q "did you mean 'memory'" /tmp/complaint
check "a name in use is refused" sh -c '! xl create -q /etc/xen/demo.cfg name=theirs memory=64 2>/tmp/complaint'
check "and said to be" grep -q "theirs" /tmp/complaint
agree list

check "ours shrinks theirs" xl mem-set theirs 200
wait_for 120 has_about theirs 200 || fail "theirs has $(column theirs 3)"
check "Debian's shrinks ours" debian xl mem-set ours 200
wait_for 120 has_about ours 200 || fail "ours has $(column ours 3)"
agree list
agree list -l ours
agree list -l theirs
check "ours gives theirs back what it had" xl mem-set theirs 256
check "Debian's gives ours back what it had" debian xl mem-set ours 256
wait_for 120 has_about ours 256 || fail "ours has $(column ours 3)"
check "more than the ceiling is refused" sh -c '! xl mem-set ours 512'
check "what a guest cannot give is said" sh -c '! xl mem-set theirs 8 2>/tmp/complaint'
check "with what it has" grep -q "was asked to have 8 MiB and has" /tmp/complaint
check "and back" xl mem-set theirs 256

check "ours takes a vCPU" xl vcpu-set ours 1
check "and gives it back" xl vcpu-set ours 2
check "Debian's takes one" debian xl vcpu-set ours 1
wait_for 120 vcpus_are ours 1 || fail "ours has $(column ours 4) vCPUs"
agree vcpu-list ours
agree list -l ours

check "ours renames theirs" xl rename theirs other
check "Debian's renames ours" debian xl rename ours mine
agree list
agree list -l other
agree list -l mine
check "ours pauses theirs" xl pause other
agree list
check "Debian's lets it go on" debian xl unpause other
check "ours sets a weight" xl sched-credit2 -d other -w 512
agree sched-credit2

check "ours reboots theirs" xl reboot other
wait_for 180 is_later_than other 3 || fail "other is $(xl domid other)"
wait_for 180 can other reboot || fail "it does not come up again"
check "Debian's reboots ours" debian xl reboot mine
wait_for 180 is_later_than mine 4 || fail "mine is $(xl domid mine)"
wait_for 180 can mine reboot || fail "it does not come up again"
agree list
agree list -l mine
check "ours shuts theirs down" xl shutdown -w other
check "Debian's shuts ours down" debian xl shutdown -w mine
wait_for 120 is_gone other || fail "other is still there"
wait_for 120 is_gone mine || fail "mine is still there"
# Linux takes static-max for what it booted with: so it stays until its drivers are up.
paused=/local/domain/$(xl domid paused)/memory
check "a guest that has not begun may get more" xl mem-max paused 80
is "what it may grow to" "$(xenstore-read "$paused/hotplug-max")" 81920
is "what it was told of" "$(xenstore-read "$paused/static-max")" 65536
check "Debian's destroys ours" debian xl destroy paused
agree list
wait_for 120 free_is "$free" || fail "$(free_memory) MiB are free, $free before"
finish
