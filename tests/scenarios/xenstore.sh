# XenStore: Debian's test program and clients on our daemon, ours on Debian's; a daemon that is killed loses nothing.
#
# run: gic2: --overlay "$work/debian"
# timeout: 600
# host: "$SCENARIOS/debian-xl" "$work/debian"
# reject: ^FAIL
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/agree.sh
. /agree.sh

# same COMMAND ARGUMENT...: our client and Debian's say the same, with the same status.
same() {
    debian xenstore "$@" >/tmp/theirs 2>/dev/null
    theirs=$?
    xenstore "$@" >/tmp/ours 2>/dev/null
    ours=$?
    if [ "$ours" = "$theirs" ] && cmp -s /tmp/ours /tmp/theirs; then
        echo "ok: both say: xenstore $*"
    else
        diff /tmp/theirs /tmp/ours
        fail "xenstore $*: status $ours, Debian's $theirs, or other words"
    fi
}

clients() {
    xenstore-write /test/value 'a b\n\x01\xff' /test/empty "" /test/dir/leaf x
    same read /test/value /test/dir/leaf
    same read -p -R /test/dir/leaf
    same read /test/nothing
    same chmod -r /test/dir n0 r7 b3
    for arguments in "ls" "ls /test" "ls -p /test" "ls -f -p /test" "ls /nothing" "list /test" "list -p /test /test/dir" \
        "list /nothing" "exists /test" "exists /test /nothing" "rm /nothing/x" "write /odd" read; do
        # shellcheck disable=SC2086 # words on purpose
        same $arguments
    done
    check "ours removes what is empty above, too" xenstore-rm -t /test/dir/leaf
    same ls -p /test
    is "what ours watches" "$(xenstore-watch -n 1 /watched)" /watched
    xenstore-rm /test
}

xencommons start
check "Debian's test program, on our daemon" debian test-xenstore
check "and at random" debian test-xenstore -r 3
clients
check "the daemon finds its store sound" xenstore-control check

check "a guest" xl create -q /etc/xen/demo.cfg name=g memory=128 maxmem=128
id=$(xl domid g)
# Debian's kernel writes this when it is ready; the last of its nodes.
is_up() { [ "$(xenstore-read "/local/domain/$id/control/feature-suspend")" = 1 ]; }
wait_for 90 is_up || fail "the guest does not come up"
sleep 2
# All but what the guest's agent writes every second.
whole() { xenstore-ls -fp | grep -v "^/local/domain/$id/data/memory = "; }
before=$(whole)
kill -9 "$(cat /run/xen/xenstored.pid)"
check "no daemon is an error" sh -c '! xenstore-ls / 2>/tmp/complaint'
check "that says so" grep -q "is xenstored running?" /tmp/complaint
xencommons start
is "the store after the daemon was killed" "$(whole)" "$before"
check "a second daemon is refused" sh -c '! xenstored 2>/tmp/complaint'
check "and told why" grep -q "another xenstored runs" /tmp/complaint
check "the guest still hears of requests" xl shutdown -w g
wait_for 30 sh -c '! xl domid g 2>/dev/null' || fail "the guest does not end"
is "what is left of it" "$(xenstore-ls -f | grep -c "/domain/$id/")" 0

xencommons stop
rm -f /run/xenstored/state
mkdir -p /var/lib/xenstored
debian xenstored
sleep 1
check "Debian's test program, on Debian's daemon" debian test-xenstore
clients
finish
