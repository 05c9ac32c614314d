# What is wrong with the input is said on the console, within seconds: no hang, no panic.
#
# hypervisors: nacelle
# timeout: 30
# host: head -c 1048576 /dev/urandom >"$work/noise"
# host: head -c 4194304 "$BUILD/kernel" | gzip -1 >"$work/cut-kernel"; truncate -s 512K "$work/cut-kernel"
# host: qemu-system-aarch64 -nodefaults -machine virt,virtualization=on,gic-version=2,dumpdtb="$work/virt.dtb" -cpu cortex-a72 -smp 2 -m 3072
# host: cp "$work/virt.dtb" "$work/no-gic.dtb"; fdtput -r "$work/no-gic.dtb" /intc@8000000
# host: cp "$work/virt.dtb" "$work/no-timer.dtb"; fdtput -r "$work/no-timer.dtb" /timer
# host: for soc in 2837 2712; do cp "$BUILD/debian/dtbs/bcm2711-rpi-4-b.dtb" "$work/$soc.dtb"; fdtput -t s "$work/$soc.dtb" / compatible raspberrypi,model "brcm,bcm$soc"; done
# run: no-dom0-module: --kernel none --until "[Nn]o .*kernel"
# run: kernel-is-noise: --kernel "$work/noise" --until "kernel: not an arm64 Image"
# run: kernel-is-cut: --kernel "$work/cut-kernel" --until "kernel: the compressed data are (cut off|corrupt)"
# run: bundle-is-noise: --kernel none --qemu-arg=-initrd --qemu-arg="$work/noise" --until "bundle: not a cpio archive"
# run: dom0-mem-beyond-ram: --dom0-mem 64G --until "dom0_mem.*(more|exceed|larger|only|too|free)"
# run: console-unknown: --append "console=nothing" --until "console=nothing: no such console"
# run: uart-unknown: --append "dtuart=/nothing@0" --until "no device tree node or alias ./nothing@0"
# run: option-value-wrong: --append "loglvl=perhaps" --until "loglvl=perhaps: bad value"
# run: number-wrong: --append "dom0_max_vcpus=many" --until "dom0_max_vcpus=many: bad value"
# run: no-gic: --dtb "$work/no-gic.dtb" --bundle --until "no interrupt controller"
# run: no-timer: --dtb "$work/no-timer.dtb" --bundle --until "no generic timer"
# run: entered-at-el1: --qemu-arg=-machine --qemu-arg=virtualization=off --until "EL1"
# run: tree-of-a-pi-3: --machine raspi4b --dtb "$work/2837.dtb" --until "device tree of a Raspberry Pi 3[.] Nacelle runs on the Raspberry Pi 4"
# run: tree-of-a-pi-5: --machine raspi4b --dtb "$work/2712.dtb" --until "device tree of a Raspberry Pi 5[.] Nacelle runs on the Raspberry Pi 4"
# run: dom0-mem-beyond-dma: --machine raspi4b --setup stub --dom0-mem 1200M --until "lie above 0x40000000.*reach by DMA.*dom0_mem=[0-9]+M avoids that"
# reject: Panic on CPU
