# A guest fires ten million random hypercalls and accesses; the hypervisor stays up and answers with errors.
#
# hypervisors: nacelle
# host: [[ -e $BUILD/payloads/fuzz ]] || "$ROOT/scripts/build" payloads
# run: gic2: --kernel "$BUILD/payloads/fuzz" --initrd none --gic 2 --smp 1 --append guest_loglvl=none --dom0-append "fuzz.count=10000000 fuzz.seed=1" --until "^payload: [0-9]"
# run: gic3: --kernel "$BUILD/payloads/fuzz" --initrd none --gic 3 --smp 1 --append guest_loglvl=none --dom0-append "fuzz.count=2000000 fuzz.seed=2" --until "^payload: [0-9]"
# timeout: 600
# expect: ^payload: [0-9]+ passed, 0 failed
# reject: ^FAIL
