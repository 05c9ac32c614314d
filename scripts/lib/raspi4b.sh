# shellcheck shell=bash
# What stands in for a Raspberry Pi 4's firmware on QEMU. Sourced after common.sh and debs.sh.

# trusted_firmware: Debian's TF-A for the Raspberry Pi 4 (bl31.bin), on standard output.
trusted_firmware() {
    debs trusted-firmware arm-trusted-firmware
    deb_file trusted-firmware usr/lib/arm-trusted-firmware/rpi4/bl31.bin
}

# armstub FILE TREE KERNEL: what runs first at address 0 (build/payloads/el3-stub, or TF-A), told as the firmware tells it
# where the device tree and the kernel are: 32-bit addresses at 0xf8 and 0xfc, the magic at 0xf0 cleared. On standard output.
armstub() {
    local magic
    magic=$(od -A n -t x4 -j $((0xf0)) -N 4 --endian=little "$1" | tr -d ' ')
    [[ $magic == 5afe570b ]] || die "$1 is no stub for a Raspberry Pi: no magic at 0xf0"
    head -c $((0xf0)) "$1"
    printf '%b' "$(little_endian 0)$(little_endian 0)$(little_endian "$2")$(little_endian "$3")"
    tail -c +$((0x101)) "$1"
}

# little_endian N: a 32-bit number as escapes for printf.
little_endian() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }

# Nodes of Debian's tree that QEMU's machine has no device for. Linux, with a hypervisor or without, would touch them and be
# stopped by an abort.
NOT_IN_QEMU='/soc/(hdmi|i2c@7ef|clock@7ef|interrupt-controller@7ef|hvs|pixelvalve|txp|vec|dsi|csi|rng)|/scb/(pcie|ethernet|gpu|xhci)'

# raspi4b_tree FILE: Debian's tree of a Raspberry Pi 4 with 2 GiB, edited in place for what QEMU's machine is not.
raspi4b_tree() {
    local tree=$1 bus node property sd=/soc/mmc@7e300000
    for bus in /soc /scb; do
        for node in $(fdtget -l "$tree" "$bus" | sed "s|^|$bus/|" | grep -E "^($NOT_IN_QEMU)"); do
            fdtput -t s "$tree" "$node" status disabled
        done
    done
    fdtput -t s "$tree" /soc/avs-monitor@7d5d2000/thermal status disabled
    # Bluetooth would take the UART from a console. The SD card sits where a Raspberry Pi has its wireless.
    fdtput -r "$tree" /soc/serial@7e201000/bluetooth
    fdtput -r "$tree" "$sd/wifi@1" /wifi-pwrseq
    for property in mmc-pwrseq non-removable pinctrl-0 pinctrl-names; do fdtput -d "$tree" "$sd" "$property"; done
    fdtput "$tree" "$sd" broken-cd
    # As the firmware does: what the machine has. With -kernel QEMU puts 960 MiB here instead.
    fdtput -t x "$tree" /memory@0 reg 0 0 3c000000 0 40000000 40000000
}

# with_room TREE OUTPUT: the same tree with room for what firmware writes into it.
with_room() { dtc -q -I dtb -O dtb -p 8192 "$1" -o "$2"; }

# sd_card FILE: says what to do, and stops, unless QEMU's SD card can be that image: with all its partitions in it (GPT's own,
# which may be longer, aside), and a power of two in size.
sd_card() {
    local size power=1 table flag kind start sectors end=0
    [[ -f $1 ]] || return 0
    size=$(stat -L -c %s "$1")
    if ((size >= 512)) && [[ $(od -A n -t x1 -j 510 -N 2 "$1") == " 55 aa" ]]; then
        table=$(for at in 446 462 478 494; do
            echo "$(od -A n -t u1 -j $at -N 1 "$1") $(od -A n -t u1 -j $((at + 4)) -N 1 "$1") $(od -A n -t u4 --endian=little -j $((at + 8)) -N 8 "$1")"
        done)
        while read -r flag kind start sectors; do
            # A file system without partitions has its boot code there.
            ((flag == 0 || flag == 128)) || { end=0; break; }
            ((kind == 0 || kind == 238 || start + sectors <= end)) || end=$((start + sectors))
        done <<<"$table"
    fi
    ((end * 512 <= size)) || die "'$1' is cut off: it has $size bytes, and its partitions end at $((end * 512)); copy it again, or make it anew"
    while ((power < size)); do power=$((power * 2)); done
    ((size == power)) || die "'$1' has $size bytes, and QEMU's SD card must be a power of two: truncate -s $power '$1' makes it longer"
}
