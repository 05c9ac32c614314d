# shellcheck shell=bash disable=SC2154 # the variables of scripts/sd-image
# The parts of scripts/sd-image, which sources this after common.sh, debs.sh and raspi4b.sh.

# In MiB: where the partitions are.
BOOT_AT=1 BOOT_SIZE=256 ROOT_AT=$((BOOT_AT + BOOT_SIZE))
# The same in every image, so that two can be compared.
DISK_ID=4e61636c FAT_ID=4e61636d ROOT_ID=4e61636c-6c65-4e61-8000-6c6c65726f6f

need_programs() {
    local missing=() program
    for program in sfdisk:fdisk mkfs.vfat:dosfstools fsck.vfat:dosfstools mcopy:mtools mdir:mtools mke2fs:e2fsprogs \
        e2fsck:e2fsprogs debugfs:e2fsprogs fakeroot:fakeroot cpio:cpio dpkg-deb:dpkg; do
        have "${program%:*}" || missing+=("${program%:*} (package ${program#*:})")
    done
    ((${#missing[@]} == 0)) || die "please install: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
}

# need_space DIRECTORY: room for the image and what it is made from.
need_space() {
    local free wanted=2048
    [[ -z $directory ]] || wanted=256
    free=$(df --output=avail -m "$1" | tail -n 1)
    ((free >= wanted)) || die "there is no room in '$1': ${free//[!0-9]/} MiB are free, $wanted are needed"
}

model_name() {
    case $1 in
    4b) echo "the Raspberry Pi 4 Model B" ;;
    400) echo "the Raspberry Pi 400" ;;
    cm4) echo "the Compute Module 4" ;;
    esac
}

# The package of dom0's kernel, which scripts/setup has downloaded.
kernel_package() {
    local package
    package=$(find "$CACHE/debs" -name 'linux-image-*.deb' 2>/dev/null | head -n 1)
    [[ -n $package ]] || die "Debian's kernel package is not in $CACHE/debs; scripts/setup downloads it"
    echo "$package"
}

kernel_version() { ls "$BUILD/debian/lib/modules"; }

# boot_files DIRECTORY: all that the firmware reads. Where each value comes from: docs/raspberry-pi-4.md.
boot_files() {
    local file
    mkdir "$1"
    for file in start4.elf fixup4.dat; do
        if [[ -n $firmware ]]; then cp "$firmware/$file" "$1/"; else deb_file raspi-firmware "usr/lib/raspi-firmware/$file" >"$1/$file"; fi
    done
    deb_file raspi-firmware usr/share/doc/raspi-firmware/copyright >"$1/LICENCE.firmware"
    cp "$BUILD/debian/dtbs/$tree" "$1/"
    cp "$BUILD/nacelle" "$1/nacelle.img"
    bundle "$1/dom0.cpio"
    cat >"$1/config.txt" <<END
# Made by scripts/sd-image. docs/raspberry-pi-4.md says where each value comes from.
[pi4]
arm_64bit=1
kernel=nacelle.img
initramfs dom0.cpio followkernel
device_tree=$tree
upstream_kernel=1
enable_gic=1
enable_uart=1
init_uart_clock=48000000
uart_2ndstage=1
force_turbo=1
END
    if [[ -n $psci ]]; then
        trusted_firmware >"$1/bl31.bin"
        echo "armstub=bl31.bin" >>"$1/config.txt"
    fi
    echo "[all]" >>"$1/config.txt"
    echo "console=dtuart dtuart=/soc/serial@7e201000 dom0_mem=${dom0_mem}M guest_loglvl=all" >"$1/cmdline.txt"
}

# bundle FILE: dom0's kernel, initramfs and command line (docs/boot.md).
bundle() {
    mkdir "$work/bundle"
    cp "$BUILD/kernel" "$work/bundle/kernel"
    cp "$BUILD/dom0.cpio.gz" "$work/bundle/ramdisk"
    printf 'console=hvc0 earlycon=xenboot rdinit=/init loglevel=4 clk_ignore_unused panic=10%s' \
        "$([[ -n $directory ]] || echo " root=LABEL=nacelle")" >"$work/bundle/cmdline"
    archive "$work/bundle" >"$1"
    rm -rf "$work/bundle"
}

# root_tree DIRECTORY: what dom0's initramfs has, and all modules of its kernel.
root_tree() {
    mkdir "$1" "$work/kernel"
    (cd "$1" && gzip -dc "$BUILD/dom0.cpio.gz" | cpio --extract --make-directories --quiet --no-preserve-owner)
    dpkg-deb -x "$(kernel_package)" "$work/kernel"
    rm -rf "$1/lib/modules"
    mv "$work/kernel/lib/modules" "$1/lib/modules"
    rm -rf "$work/kernel"
    depmod -b "$1" "$(kernel_version)"
    mkdir -p "$1/boot/firmware"
    chmod -R u+rwX,go+rX,go-w "$1"
}

# fat_partition DIRECTORY FILE
fat_partition() {
    local size
    size=$(du -sm "$1" | cut -f 1)
    ((size < BOOT_SIZE - 8)) || die "the boot files need $size MiB, the boot partition has $BOOT_SIZE"
    truncate -s "${BOOT_SIZE}M" "$2"
    mkfs.vfat -F 32 -n NACELLE -i "$FAT_ID" -h $((BOOT_AT * 2048)) "$2" >/dev/null
    mcopy -i "$2" -m "$1"/* ::/
}

# ext4_partition DIRECTORY FILE MIB: its files are root's.
ext4_partition() {
    local size
    size=$(du -sm "$1" | cut -f 1)
    ((size * 11 / 10 + 64 < $3)) || die "dom0's root needs $((size * 11 / 10 + 64)) MiB: say --size $((size * 11 / 10 + 128 + ROOT_AT))M or more"
    truncate -s "$3M" "$2"
    # shellcheck disable=SC2016 # for the shell in it
    fakeroot -- sh -c 'chown -R 0:0 "$1" && mke2fs -q -t ext4 -L nacelle -U "$3" -E hash_seed="$3",root_owner=0:0 -m 1 -d "$1" "$2"' \
        sh "$1" "$2" "$ROOT_ID"
}

# layout: the partition table, as sfdisk reads and writes it.
layout() {
    printf 'label: dos\nlabel-id: 0x%s\n' "$DISK_ID"
    printf 'start=%d, size=%d, type=c, bootable\n' $((BOOT_AT * 2048)) $((BOOT_SIZE * 2048))
    printf 'start=%d, size=%d, type=83\n' $((ROOT_AT * 2048)) $(((size - ROOT_AT) * 2048))
}

# assemble IMAGE FAT EXT4
assemble() {
    truncate -s "${size}M" "$1"
    layout | sfdisk --quiet --no-reread --no-tell-kernel "$1" >/dev/null
    dd if="$2" of="$1" bs=1M seek="$BOOT_AT" conv=sparse,notrunc status=none
    dd if="$3" of="$1" bs=1M seek="$ROOT_AT" conv=sparse,notrunc status=none
}

# check_image IMAGE BOOT ROOT: the table, both file systems, and the files in them.
check_image() {
    local file part=$work/part
    sfdisk --verify "$1" >/dev/null 2>&1 || die "sfdisk does not accept the partition table"
    [[ $(sfdisk --dump "$1" | sed -n 's/^.*: *start= *\([0-9]*\), size= *\([0-9]*\), type=\([0-9a-f]*\).*/\1 \2 \3/p') == \
        "$((BOOT_AT * 2048)) $((BOOT_SIZE * 2048)) c"$'\n'"$((ROOT_AT * 2048)) $(((size - ROOT_AT) * 2048)) 83" ]] ||
        die "the partition table reads back differently"
    dd if="$1" of="$part" bs=1M skip="$BOOT_AT" count="$BOOT_SIZE" conv=sparse status=none
    fsck.vfat -n "$part" >"$work/fsck.log" 2>&1 || { cat "$work/fsck.log" >&2; die "fsck.vfat does not accept the FAT partition"; }
    rm "$part"
    mkdir "$work/back"
    mcopy -i "$1@@$((BOOT_AT << 20))" "::/*" "$work/back/"
    diff -rq "$2" "$work/back" >&2 || die "the boot files read back differently"
    rm -rf "$work/back"
    dd if="$1" of="$part" bs=1M skip="$ROOT_AT" conv=sparse status=none
    e2fsck -fn "$part" >"$work/fsck.log" 2>&1 || { cat "$work/fsck.log" >&2; die "e2fsck does not accept the ext4 partition"; }
    for file in init usr/bin/xl boot/guest/vmlinuz lib/modules/"$(kernel_version)"/modules.dep; do
        debugfs -R "cat /$file" "$part" 2>/dev/null | cmp -s - "$3/$file" || die "/$file reads back differently from the ext4 partition"
    done
    rm "$part"
}

next_steps_card() {
    cat >&2 <<END

$output is ready: $size MiB, for $(model_name "$model").

Next:
 1. Write it to a card. Everything on the card is lost; lsblk tells its name:
        sudo dd if=$output of=/dev/sdX bs=4M conv=fsync status=progress
    or Raspberry Pi Imager: "Use custom".
$(serial_line)
END
}

next_steps_network() {
    cat >&2 <<END

$directory is ready, for $(model_name "$model"), booted from the network.

Next:
 1. Serve it by TFTP, for instance
        sudo dnsmasq -d -p 0 --enable-tftp --tftp-root=$(realpath "$directory") \\
            --dhcp-range=192.168.7.10,192.168.7.50 --interface=ethX --pxe-service=0,"Raspberry Pi Boot"
    and let the board's EEPROM try the network (rpi-eeprom-config: BOOT_ORDER=0xf21).
$(serial_line)
END
}

serial_line() {
    cat <<END
 2. Connect a serial cable of 3.3 V: ground to pin 6, its RX to pin 8, its TX to pin 10. Then, on this machine:
        picocom -b 115200 /dev/ttyUSB0
 3. Switch on. After lines of the firmware come "(XEN) Nacelle", "(XEN) Brought up 4 CPUs", and dom0's shell.
What to do there, and what if nothing is seen: docs/raspberry-pi-4.md. No board has run this yet; QEMU's raspi4b has.
END
}
