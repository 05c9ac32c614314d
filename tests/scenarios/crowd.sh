# A thousand domains at once, on processors with 8-bit VMIDs: each runs, on its own memory, and all that they took comes back
# (tests/payloads/src/bin/crowd, in dom0's place).
#
# host: [[ -e $BUILD/payloads/crowd ]] || "$ROOT/scripts/build" payloads
# hypervisors: nacelle
# run: gic2-smp1: --kernel "$BUILD/payloads/crowd" --initrd none --gic 2 --smp 1 --until "^payload: [0-9]"
# run: gic3-smp4: --kernel "$BUILD/payloads/crowd" --initrd none --gic 3 --smp 4 --until "^payload: [0-9]"
# alone: how CPUs are shared goes by the clock
# timeout: 200
# expect: ^payload: [0-9]+ passed, 0 failed
# reject: ^FAIL
