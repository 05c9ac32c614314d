# Each toolstack on each hypervisor does the same: ours and Debian's xl, xenstored and xenconsoled, on Nacelle and Debian's Xen.
#
# run: nacelle-ours: --hypervisor nacelle --mem 4G --overlay "$work/debian"
# run: nacelle-debian: --hypervisor nacelle --mem 4G --overlay "$work/debian"
# run: xen-ours: --hypervisor xen --mem 4G --overlay "$work/debian"
# run: xen-debian: --hypervisor xen --mem 4G --overlay "$work/debian"
# alone: twenty guests keep all CPUs busy
# timeout: 900
# host: "$SCENARIOS/debian-xl" "$work/debian"
# reject: ^FAIL
. /scenario.sh
tools=${variant#*-}
# shellcheck source=tests/scenarios/dom0/guest.sh
. /guest.sh

start_services
free=$(free_memory)

options=
# Debian's makes no domain that may grow on Arm, so here none may.
create() {
    name=$1
    shift
    # Debian's takes options only before the file.
    x create -q $options /etc/xen/demo.cfg "name=\"$name\"" "$@"
}
domid_is_not() { now=$(x domid "$1" 2>/dev/null) && [ "$now" != "$2" ]; }
state() { column "$1" 5; }

check "create" create one memory=256 maxmem=256 vcpus=2
open_console one
check "console: login" log_in
is "the domain's vCPUs" "$(column one 4)" 2
is "what its kernel is" "$(ask "uname -r | cut -c1-3")" 6.1
inside=$(memory_inside)

check "balloon down" x mem-set one 128
wait_for 60 has_about one 128 || fail "it has $(column one 3) MiB, not 128"
now=$(memory_inside)
between "inside it has shrunk by, in MiB" $((inside - now)) 118 138
check "balloon up" x mem-set one 256
wait_for 60 has_about one 256 || fail "it has $(column one 3) MiB, not 256"
between "inside it is where it was, difference in MiB" $((inside - $(memory_inside))) -2 2

check "pause" x pause one
case $(state one) in *p*) echo "ok: it is paused" ;; *) fail "its state is $(state one)" ;; esac
check "unpause" x unpause one
is "it goes on" "$(ask "echo on")" on
check "console: detach" leave_console

id=$(x domid one)
check "reboot" x reboot one
wait_for 120 domid_is_not one "$id" || fail "it did not reboot"
wait_for 120 is_up one || fail "it does not come up again"
open_console one
check "console: login after the reboot" log_in
type_in "poweroff"
wait_for 90 is_gone one || fail "it does not power itself off"
wait_for 20 sh -c "! kill -0 $console_pid 2>/dev/null" || fail "its console does not end"
exec 9>&-

check "create another" create two memory=128 maxmem=128
wait_for 120 asks_for_login two || fail "two does not come up"
check "shutdown" x shutdown -w two
wait_for 30 is_gone two || fail "two is still there"
options=-p
check "create paused" create three memory=128 maxmem=128
options=
check "destroy" x destroy three
check "it is gone" is_gone three
wait_for 30 free_is "$free" || fail "free memory is $(free_memory) MiB, not $free"

# What is compared needs many on Nacelle alone.
case $hypervisor in
xen) many=6 ;;
*) many=20 ;;
esac
i=0
while [ $i -lt $many ]; do
    i=$((i + 1))
    create "g$i" memory=96 maxmem=96 || fail "g$i is not made"
done
is "guests at once" "$(x list | grep -c '^g[0-9]')" $many
all_up() {
    for n in $(seq $many); do asks_for_login "g$n" || return 1; done
}
wait_for 400 all_up || fail "up are $(for n in $(seq $many); do asks_for_login "g$n" && echo "g$n"; done | tr '\n' ' ')"
# Debian's 4.17 dies of a segmentation fault at the end of `shutdown -a -w` of many, on Xen, too.
case $tools in
debian) check "shutdown of all" x shutdown -a ;;
*) check "shutdown of all" x shutdown -a -w ;;
esac
wait_for 120 sh -c '[ "$(xl list | wc -l)" = 2 ]' || fail "left are: $(xl list)"
wait_for 60 free_is "$free" || fail "free memory is $(free_memory) MiB, not $free"
no_new_warnings
finish
