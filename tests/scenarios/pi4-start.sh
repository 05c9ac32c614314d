# What the scenario `pi4` does not have: a firmware that keeps the page with the spin tables to itself, where three CPUs come all
# the same; and the mini-UART as the console.
#
# hypervisors: nacelle
# timeout: 60
# host: . "$ROOT/scripts/lib/raspi4b.sh"; cp "$BUILD/debian/dtbs/bcm2711-rpi-4-b.dtb" "$work/tree.dtb"; raspi4b_tree "$work/tree.dtb"
# host: (cd "$work" && fdtput -c tree.dtb /reserved-memory/stub@0 && fdtput -t x tree.dtb /reserved-memory/stub@0 reg 0 0 1000 && fdtput tree.dtb /reserved-memory/stub@0 no-map)
# run: no-map-spin-table: --machine raspi4b --setup stub --dtb "$work/tree.dtb" --until "Brought up 4 CPUs"
# run: mini-uart: --machine raspi4b --append dtuart=serial1 --until "Linux version"
# reject: Panic on CPU|Unexpected
