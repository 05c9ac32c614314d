# A Raspberry Pi 4, in three set-ups: QEMU's own hand-over, a stub at EL3 with a secure GIC and two banks of memory, Debian's
# TF-A with PSCI. A guest is made, resized and destroyed; dom0 has neither the watchdog nor the UARTs; the machine goes off.
#
# run: kernel: --machine raspi4b --log "$work/console"
# run: stub: --machine raspi4b --setup stub --log "$work/console"
# run: tfa: --machine raspi4b --setup tfa --log "$work/console" --dom0-mem 768M
# hypervisors: nacelle
# timeout: 240
# expect: Brought up 4 CPUs
# expect: Hardware Dom0 halted: halting machine
# reject: ^FAIL
# reject: terminating on signal
# after: [[ $variant == stub ]] || ! grep -q 'as far as devices on /soc reach by DMA' "$work/console"
# after: [[ $variant != stub ]] || grep -q '0x40000000, as far as devices on /soc reach by DMA, .*dom0_mem=[0-9]*M avoids that' "$work/console"
# after: grep -q 'Spectre v2, BHB: no support for SMCCC_ARCH_WORKAROUND_1' "$work/console" || [[ $variant == tfa ]]
# after: grep -q 'mitigated at each entry, by the firmware.s SMCCC_ARCH_WORKAROUND_3' "$work/console" || [[ $variant != tfa ]]
# after: [[ $variant != tfa ]] || grep -q 'PSCI_SYSTEM_OFF' "$work/console"
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/guest.sh
. /guest.sh

is "the machine" "$(tr -d '\0' </proc/device-tree/model)" "Raspberry Pi 4 Model B"
is "the number of CPUs online" "$(nproc)" 4
is "the counter's rate in kHz" "$(dmesg | sed -n 's/.*cp15 timer(s) running at \([0-9.]*\)MHz.*/\1/p')" 54.00
# The first bank of memory is where every device reaches, with room for the buffers.
read -r first last <<-EOF
	$(sed -n '/System RAM/{s/-/ /;s/ :.*//p}' /proc/iomem | awk 'length($1) < 9 && $1 < "40000000"' | head -n 1)
EOF
check "memory begins below 1 GiB (0x$first to 0x$last)" [ -n "$first" ]
check "Linux has its buffers for DMA there" sh -c "dmesg | grep -q 'created CMA memory pool at 0x00000000[0-3]'"
soc=/proc/device-tree/soc
is "what dom0 has of the watchdog and the UARTs" "$(cd $soc && ls | grep -E '^(watchdog|serial|aux)' | tr '\n' ' ')" ""
check "it has the pins" [ -d "$soc/gpio@7e200000" ]
is "who has the pages of power management and UART" "$(grep -cE '^fe(100|00a|201|215)' /proc/iomem)" 0

case $(cat /sys/devices/system/cpu/vulnerabilities/spectre_v2) in Mitigation*) mitigates=yes ;; *) mitigates=no ;; esac
case $variant in tfa) expected=yes ;; *) expected=no ;; esac
is "whether dom0 has the firmware's mitigation of Spectre v2" $mitigates $expected

free=$(free_memory)
check "a guest is made" xl create /etc/xen/demo.cfg
wait_for 120 asks_for_login demo || fail "it asks for no login"
check "it shrinks" xl mem-set demo 128
has_about demo 128 || fail "demo has $(column demo 3) MiB, not 128"
check "it grows" xl mem-set demo 256
has_about demo 256 || fail "demo has $(column demo 3) MiB, not 256"
check "it is destroyed" xl destroy demo
wait_for 20 is_gone demo || fail "demo is still there"
wait_for 30 free_is "$free" || fail "free memory is $(free_memory) MiB, not $free"
no_new_warnings
finish
