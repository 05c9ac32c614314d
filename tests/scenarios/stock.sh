# The QEMU command that boots Debian's Xen 4.17 with guest-loader modules, to the letter, with Debian's kernel and an
# initramfs that knows nothing of Nacelle.
#
# run: gic2: 2
# run: gic3: 3
# host: mkdir -p "$work/root/bin" "$work/root/proc" "$work/root/sys"; cp "$BUILD/debian/busybox" "$work/root/bin/"
# host: printf '#!/bin/busybox sh\n/bin/busybox mount -t proc p /proc; /bin/busybox mount -t sysfs s /sys\necho this is $(/bin/busybox cat /sys/hypervisor/type)\n/bin/busybox poweroff -f\n' >"$work/root/init"; chmod +x "$work/root/init"
# host: pack "$work/root" >"$work/initrd"
# command: qemu-system-aarch64 -nodefaults -machine virt,virtualization=on,gic-version=${options[0]} -cpu cortex-a72 -smp 2 -m 3072 -display none -serial stdio -monitor none -no-reboot -kernel "$BUILD/$hypervisor" -append "dom0_mem=1024M console=dtuart dtuart=/pl011@9000000 guest_loglvl=all noreboot" -device guest-loader,addr=0x49000000,kernel="$BUILD/kernel",bootargs="console=hvc0 earlycon=xenboot rdinit=/init loglevel=4" -device guest-loader,addr=0x4f000000,initrd="$work/initrd"
# expect: ^this is xen
# expect: reboot: Power down
