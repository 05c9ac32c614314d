# dom0 resets a Raspberry Pi 4, by a watchdog block with the name that Linux 5.0 and Xen know: QEMU ends by itself.
#
# run: watchdog: --machine raspi4b --dtb "$work/tree.dtb" --append no-noreboot
# hypervisors: nacelle
# timeout: 90
# host: . "$ROOT/scripts/lib/raspi4b.sh"; cp "$BUILD/debian/dtbs/bcm2711-rpi-4-b.dtb" "$work/tree.dtb"; raspi4b_tree "$work/tree.dtb"
# host: fdtput -t s "$work/tree.dtb" /soc/watchdog@7e100000 compatible brcm,bcm2835-pm
# expect: Hardware Dom0 shutdown: rebooting machine
# reject: terminating on signal
echo "nacelle-exec-status: 0"
reboot -f
