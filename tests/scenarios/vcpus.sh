# Guests with 1 to 8 vCPUs bring them all up; one of them takes vCPUs away and brings them back, as the host sees.
#
# run: gic2: --gic 2 --smp 2
# run: gic3: --gic 3 --smp 2
# alone: how CPUs are shared goes by the clock
# timeout: 600
# reject: ^FAIL
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/guest.sh
. /guest.sh

for n in 1 2 3 4 5 6 7 8; do
    check "a guest with $n vCPUs" xl create -q /etc/xen/demo.cfg "name=v$n" "vcpus=$n" memory=96 maxmem=96
done
for n in 1 2 3 4 5 6 7 8; do
    wait_for 300 is_up "v$n" || fail "v$n does not come up"
    is "vCPUs of v$n" "$(column "v$n" 4)" "$n"
done

# online NAME: its vCPUs that are on, as the hypervisor has it.
online() { xl vcpu-list "$1" | awk 'NR > 1 && $5 !~ /p/' | wc -l; }
open_console v8
check "login" log_in
is "CPUs inside" "$(ask nproc)" 8
type_in "for c in 2 3 4 5 6 7; do echo 0 >/sys/devices/system/cpu/cpu\$c/online; done"
is "CPUs inside, after six went" "$(ask nproc)" 2
is "vCPUs that are on" "$(online v8)" 2
type_in "for c in 2 3 4 5; do echo 1 >/sys/devices/system/cpu/cpu\$c/online; done"
is "CPUs inside, after four came back" "$(ask nproc)" 6
is "vCPUs that are on" "$(online v8)" 6
check "the console can be left" leave_console

check "xl vcpu-set says less" xl vcpu-set v4 2
is "what v4 may have on" "$(xenstore-read "/local/domain/$(xl domid v4)/cpu/3/availability")" offline
check "xl vcpu-set says more" xl vcpu-set --ignore-host v4 4
is "what v4 may have on" "$(xenstore-read "/local/domain/$(xl domid v4)/cpu/3/availability")" online
check "all shut down" xl shutdown -a -w
finish
