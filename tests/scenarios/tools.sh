# xl in dom0 over /dev/xen/privcmd: what it says of the hypervisor, its memory, its domains and its log.
#
# run: gic2: --gic 2
# run: gic3-smp4: --gic 3 --smp 4 --mem 4G
# reject: ^FAIL
. /scenario.sh

info() { xl info | sed -n "s/^$1 *: *//p"; }

check "xl info works" xl info
is "xen_major" "$(info xen_major)" 4
is "xen_minor" "$(info xen_minor)" 17
is "the CPUs of the machine" "$(info nr_cpus)" "$smp"
if [ "$hypervisor" = nacelle ]; then
    case $(info xen_extra) in
    *[Nn]acelle*[0-9].[0-9]*) echo "ok: xen_extra names Nacelle and its version" ;;
    *) fail "xen_extra is '$(info xen_extra)'" ;;
    esac
fi

total=$(info total_memory)
free=$(info free_memory)
between "total_memory in MiB" "$total" $((mem - 100)) "$mem"
check "xl list works" xl list
dom0=$(xl list | sed -n 's/^Domain-0 *0 *\([0-9]*\) .*/\1/p')
between "dom0's memory in MiB" "${dom0:-0}" 1000 1024
between "free and dom0's memory together, in MiB" $((free + dom0)) $((total - 80)) "$total"
is "dom0's CPUs" "$(xl list | sed -n 's/^Domain-0 *0 *[0-9]* *\([0-9]*\) .*/\1/p')" "$smp"

check "the log has lines" [ "$(xl dmesg | wc -l)" -ge 5 ]

# The daemon that follows the log hears of each line.
xencommons start
has_followed() { [ "$(tail -n 1 /var/log/xen/console/hypervisor.log)" = "$(xl dmesg | tail -n 1)" ]; }
wait_for 20 has_followed || fail "the last line in hypervisor.log is $(tail -n 1 /var/log/xen/console/hypervisor.log)"
lines=$(xl dmesg | wc -l)
check "a line more" xl debug-keys h
check "is in the log" [ "$(xl dmesg | wc -l)" -gt "$lines" ]
wait_for 20 has_followed || fail "the last line in hypervisor.log is $(tail -n 1 /var/log/xen/console/hypervisor.log)"
no_new_warnings
finish
