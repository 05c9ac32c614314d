# Bare-metal guests in dom0's place (tests/payloads): what hypercalls answer, and interrupts on 1 to 8 processors.
#
# host: [[ -e $BUILD/payloads/smp && -e $BUILD/payloads/abi ]] || "$ROOT/scripts/build" payloads
# run: abi-gic2: --kernel "$BUILD/payloads/abi" --initrd none --gic 2 --smp 2 --until "^payload: [0-9]"
# run: abi-gic3: --kernel "$BUILD/payloads/abi" --initrd none --gic 3 --smp 2 --until "^payload: [0-9]"
# run: smp-gic2-smp1: --kernel "$BUILD/payloads/smp" --initrd none --gic 2 --smp 1 --until "^payload: [0-9]"
# run: smp-gic2-smp4: --kernel "$BUILD/payloads/smp" --initrd none --gic 2 --smp 4 --until "^payload: [0-9]"
# run: smp-gic2-smp8: --kernel "$BUILD/payloads/smp" --initrd none --gic 2 --smp 8 --until "^payload: [0-9]"
# run: smp-gic3-smp2: --kernel "$BUILD/payloads/smp" --initrd none --gic 3 --smp 2 --until "^payload: [0-9]"
# run: smp-gic3-smp8: --kernel "$BUILD/payloads/smp" --initrd none --gic 3 --smp 8 --until "^payload: [0-9]"
# run: abi-pi4: --kernel "$BUILD/payloads/abi" --initrd none --machine raspi4b --setup tfa --hypervisor nacelle --until "^payload: [0-9]"
# run: smp-pi4: --kernel "$BUILD/payloads/smp" --initrd none --machine raspi4b --setup stub --hypervisor nacelle --until "^payload: [0-9]"
# alone: timers go by the clock
# timeout: 200
# expect: ^payload: [0-9]+ passed, 0 failed
# reject: ^FAIL
