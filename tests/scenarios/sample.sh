# A payload in dom0's place that watches its own working set: the hypervisor's estimate must be near what it touches, where hardware
# sets access flags (`max`) and where faults do (cortex-a72); and EL2's copies get past clear flags.
#
# host: [[ -e $BUILD/payloads/sample ]] || "$ROOT/scripts/build" payloads
# run: gic2: --kernel "$BUILD/payloads/sample" --initrd none --gic 2 --smp 1 --cpu cortex-a72 --dom0-mem 64 --until "^payload: [0-9]"
# run: gic3-max: --kernel "$BUILD/payloads/sample" --initrd none --gic 3 --smp 1 --cpu max --dom0-mem 64 --until "^payload: [0-9]"
# hypervisors: nacelle
# timeout: 100
# expect: ^payload: [0-9]+ passed, 0 failed
# reject: ^FAIL
