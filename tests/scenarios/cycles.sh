# CYCLES times a guest is made, gives memory, takes it back and is destroyed: what is free is exactly what was free.
#
# run: gic2: --timeout $((200 + ${CYCLES:-6} * 40))
# run: gic3-smp4: --gic 3 --smp 4 --timeout $((200 + ${CYCLES:-6} * 40))
# reject: ^FAIL
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/guest.sh
. /guest.sh

# To the page.
free_pages() { xl info --json | sed -n 's/.*"free_pages": *\([0-9]*\).*/\1/p'; }
free_pages_are() { [ "$(free_pages)" = "$1" ]; }

# lost WHAT: a failure, and what there is to see of it.
lost() {
    xl list
    xl debug-keys q
    tail -n 40 /var/log/xen/console/guest-demo.log
    fail "cycle $cycle: it $1"
}

# The first one fills what the hypervisor and the daemons keep from then on.
cycle=0
while [ $cycle -le "$CYCLES" ]; do
    xl create -q /etc/xen/demo.cfg || fail "cycle $cycle: no guest"
    wait_for 120 is_up demo || lost "does not come up"
    xl mem-set demo 128 || lost "does not shrink"
    xl mem-set demo 320 || lost "does not grow"
    xl destroy demo || fail "cycle $cycle: it is not destroyed"
    [ $cycle -gt 0 ] || {
        wait_for 10 is_gone demo
        sleep 2
        free=$(free_pages)
        [ "${free:-0}" -gt 0 ] || fail "xl info does not say how many pages are free"
        echo "free after the first: $free pages"
    }
    cycle=$((cycle + 1))
done
wait_for 30 free_pages_are "$free" || fail "free are $(free_pages) pages, not $free"
echo "free after $CYCLES more: $(free_pages) pages"
is "domains that are left" "$(xl list | wc -l)" 2
finish
