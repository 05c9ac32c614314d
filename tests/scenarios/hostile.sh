# A domU fires random hypercalls and accesses beside one that minds its own business, which notices nothing: it computes
# the same as alone, and in the end nothing is left of either.
#
# hypervisors: nacelle
# run: gic2: --overlay "$work/files" --append guest_loglvl=none
# run: gic3: --gic 3 --overlay "$work/files" --append guest_loglvl=none
# run: gic2-debian: --overlay "$work/files" --append guest_loglvl=none
# timeout: 500
# host: mkdir -p "$work/files/payloads"; cp "$BUILD"/payloads/{fuzz,steady} "$work/files/payloads/"
# host: [[ $variant != *debian ]] || "$SCENARIOS/debian-xl" "$work/files"
# reject: ^FAIL
# reject: PANIC
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/agree.sh
. /agree.sh

case $variant in
*debian) toolstack() { debian xl "$@"; } ;;
*) toolstack() { xl "$@"; } ;;
esac

# make NAME PAYLOAD VCPUS END ARGUMENTS: starts a guest, and says what becomes of it when it ends.
make() {
    cat >"/tmp/$1.cfg" <<EOF
name = "$1"
kernel = "/payloads/$2"
memory = 32
vcpus = $3
extra = "$5"
on_poweroff = "$4"
on_watchdog = "$4"
on_crash = "preserve"
EOF
    check "$1 starts" toolstack create -q "/tmp/$1.cfg"
}
is_gone() { ! xl domid "$1" >/dev/null 2>&1; }
log_of() { tr -d '\r' <"/var/log/xen/console/guest-$1.log"; }
is_done() { [ -n "$(failures_of "$1")" ]; }
sum_of() { log_of "$1" | sed -n 's/^steady: .* sum //p' | tail -n 1; }
failures_of() { log_of "$1" | sed -n 's/^payload: [0-9]* passed, \([0-9]*\) failed/\1/p' | tail -n 1; }
free_memory() { xl info | sed -n 's/^free_memory *: *//p'; }

free=$(free_memory)
make alone steady 1 destroy "steady.rounds=600"
wait_for 120 is_gone alone || fail "the guest that is alone does not end"
is "what it found wrong" "$(failures_of alone)" 0

for seed in 11 12; do
    # The second has more to do than there is time.
    [ $seed = 11 ] && count=200000 || count=100000000
    make hostile fuzz 1 preserve "fuzz.count=$count fuzz.seed=$seed"
    make "beside$seed" steady 2 destroy "steady.rounds=600"
    wait_for 200 is_gone "beside$seed" || fail "the guest beside the hostile one does not end"
    is "what the one beside found wrong" "$(failures_of "beside$seed")" 0
    is "what it computed" "$(sum_of "beside$seed")" "$(sum_of alone)"
    # The second is destroyed in the middle of it: what it holds comes back all the same.
    if [ $seed = 11 ]; then
        wait_for 200 is_done hostile || fail "the hostile one does not end"
        is "what the hostile one found wrong" "$(failures_of hostile)" 0
    fi
    check "the hostile one is destroyed" toolstack destroy hostile
    wait_for 60 is_gone hostile || fail "the hostile one stays"
done
wait_for 20 sh -c "[ \"\$(xl info | sed -n 's/^free_memory *: *//p')\" = $free ]" || fail "free memory is $(free_memory), not $free"
is "domains" "$(xl list | wc -l)" 2
no_new_warnings
finish
