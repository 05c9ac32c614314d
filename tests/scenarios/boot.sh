# Debian's kernel is dom0, on every kind of machine: its CPUs, its memory, its clock, and no complaint.
#
# run: gic2-smp1: --gic 2 --smp 1
# run: gic2-smp2: --gic 2 --smp 2
# run: gic2-smp4: --gic 2 --smp 4
# run: gic2-smp8: --gic 2 --smp 8
# run: gic3-smp1: --gic 3 --smp 1
# run: gic3-smp2: --gic 3 --smp 2
# run: gic3-smp4: --gic 3 --smp 4
# run: gic3-smp8: --gic 3 --smp 8
# run: cortex-a53: --cpu cortex-a53
# run: cortex-a57: --cpu cortex-a57
# run: cortex-a76: --cpu cortex-a76 --gic 3
# run: neoverse-n1: --cpu neoverse-n1 --gic 3
# run: max: --cpu max --gic 3
# run: memory-1g: --mem 1G
# run: memory-2g: --mem 2G
# run: memory-4g: --mem 4G --dom0-mem 3G
# run: memory-8g: --mem 8G --gic 3
# run: memory-16g: --mem 16G --gic 3 --cpu neoverse-n1
# timeout: 120
# reject: ^FAIL
. /scenario.sh

is "the hypervisor" "$(cat /sys/hypervisor/type)" xen
is "the ABI" "$(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)" 4.17
check "dom0 is privileged" grep -q control_d /proc/xen/capabilities
is "the number of CPUs online" "$(nproc)" "$smp"
is "the CPUs online" "$(cat /sys/devices/system/cpu/online)" "$(cat /sys/devices/system/cpu/possible)"

# The real-time clock is the host's: its seconds are the kernel's. When a second begins is known only to lie between two
# readings; so the time between two such moments has a least and a most, further apart on a busy host.
second() { cat /sys/class/rtc/rtc0/since_epoch; }
hundredths() {
    read -r uptime _ </proc/uptime
    echo "${uptime%.*}${uptime#*.}"
}
# Sets $after and $before, hundredths since boot between which the second $began has begun.
next_second() {
    first=$(second)
    began=$first
    before=$(hundredths)
    while [ "$began" = "$first" ]; do
        after=$before
        usleep 2000
        before=$(hundredths)
        began=$(second)
    done
    before=$(hundredths)
}
next_second
from_after=$after from_before=$before from=$began
sleep 7
next_second
seconds=$((began - from))
echo "$seconds seconds took $((after - from_before)) to $((before - from_after)) hundredths"
check "the kernel's clock is not fast" [ $((after - from_before)) -le $((seconds * 101)) ]
check "the kernel's clock is not slow" [ $((before - from_after)) -ge $((seconds * 99)) ]
between "the kernel's date against the real-time clock" $(($(date +%s) - $(second))) -2 2

no_new_warnings
finish
