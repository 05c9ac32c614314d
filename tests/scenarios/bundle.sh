# Kernel, initramfs and command line come as one cpio in the initrd, as a Raspberry Pi's firmware can load them.
#
# run: gic2: --gic 2 --bundle --dom0-append nacelle-test=1
# run: gic3-small: --gic 3 --mem 1G --bundle --dom0-append nacelle-test=1
# hypervisors: nacelle
# reject: ^FAIL
. /scenario.sh

is "the hypervisor" "$(cat /sys/hypervisor/type)" xen
check "the command line came along" grep -q nacelle-test=1 /proc/cmdline
is "the number of CPUs online" "$(nproc)" "$smp"
finish
