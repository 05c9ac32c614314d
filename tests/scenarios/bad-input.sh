# What is wrong with the input is said on the console, within seconds: no hang, no panic.
#
# hypervisors: nacelle
# timeout: 30
# host: head -c 1048576 /dev/urandom >"$work/noise"
# host: head -c 4096 "$BUILD/kernel" >"$work/cut-kernel"
# host: qemu-system-aarch64 -machine virt,virtualization=on,gic-version=2,dumpdtb="$work/virt.dtb" -cpu cortex-a72 -smp 2 -m 3072
# host: cp "$work/virt.dtb" "$work/no-gic.dtb"; fdtput -r "$work/no-gic.dtb" /intc@8000000
# host: cp "$work/virt.dtb" "$work/no-memory.dtb"; fdtput -r "$work/no-memory.dtb" /memory@40000000
# host: cp "$work/virt.dtb" "$work/no-timer.dtb"; fdtput -r "$work/no-timer.dtb" /timer
# run: no-dom0-module: --kernel none --until "no dom0 kernel"
# run: kernel-is-noise: --kernel "$work/noise" --until "dom0 kernel.*(not|no) "
# run: kernel-is-cut: --kernel "$work/cut-kernel" --until "dom0 kernel.*(cut|short|truncated|incomplete)"
# run: bundle-is-noise: --kernel none --qemu-arg=-initrd --qemu-arg="$work/noise" --until "no dom0 kernel|bundle"
# run: dom0-mem-beyond-ram: --dom0-mem 64G --until "dom0_mem"
# run: console-unknown: --append "dtuart=/nothing@0" --until "console: no device tree node or alias"
# run: option-value-wrong: --append "loglvl=perhaps" --until "loglvl"
# run: number-wrong: --append "dom0_max_vcpus=many" --until "dom0_max_vcpus"
# run: no-gic: --dtb "$work/no-gic.dtb" --bundle --until "no interrupt controller"
# run: no-memory: --dtb "$work/no-memory.dtb" --bundle --until "describes no memory"
# run: no-timer: --dtb "$work/no-timer.dtb" --bundle --until "no generic timer"
# run: entered-at-el1: --qemu-arg=-machine --qemu-arg=virtualization=off --until "EL1"
# reject: Panic on CPU
