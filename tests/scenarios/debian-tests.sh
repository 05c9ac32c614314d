# Xen's own test programs, as Debian builds them (package xen-utils-4.17): of XenStore, ours and Debian's, of mapping grant
# tables, of the pool that a domain's translation tables come from.
#
# run: gic2: --overlay "$work/debian"
# run: gic3: --gic 3 --overlay "$work/debian"
# timeout: 200
# host: "$SCENARIOS/debian-xl" "$work/debian"
# reject: ^FAIL
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/guest.sh
. /guest.sh

free=$(free_memory)
check "test-xenstore on our xenstored" debian test-xenstore
check "test-resource" debian test-resource
check "test-paging-mempool" debian test-paging-mempool
is "domains that are left" "$(xl list | wc -l)" 2
wait_for 20 free_is "$free" || fail "free memory is $(free_memory) MiB, not $free"
tools=debian
start_services
check "test-xenstore on Debian's xenstored" debian test-xenstore
finish
