# A guest fires ten million random hypercalls and accesses; the hypervisor stays up and answers with errors. And a toolstack
# gone mad does anything to domains that it half builds: when they are gone, memory is what it was.
#
# hypervisors: nacelle
# host: [[ -e $BUILD/payloads/fuzz ]] || "$ROOT/scripts/build" payloads
# run: gic2: --kernel "$BUILD/payloads/fuzz" --initrd none --gic 2 --smp 1 --append guest_loglvl=none --dom0-append "fuzz.count=10000000 fuzz.seed=1" --until "^payload: [0-9]"
# run: gic3: --kernel "$BUILD/payloads/fuzz" --initrd none --gic 3 --smp 1 --append guest_loglvl=none --dom0-append "fuzz.count=2000000 fuzz.seed=2" --until "^payload: [0-9]"
# run: domains-gic2: --kernel "$BUILD/payloads/fuzz" --initrd none --gic 2 --smp 2 --append guest_loglvl=none --dom0-append "fuzz.count=1000 fuzz.domains=400000 fuzz.seed=4" --until "^payload: [0-9]"
# run: domains-gic3: --kernel "$BUILD/payloads/fuzz" --initrd none --gic 3 --smp 2 --append guest_loglvl=none --dom0-append "fuzz.count=1000 fuzz.domains=200000 fuzz.seed=5" --until "^payload: [0-9]"
# timeout: 600
# expect: ^payload: [0-9]+ passed, 0 failed
# reject: ^FAIL
