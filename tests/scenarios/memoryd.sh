# The daemon that balances memory: settings and what is refused, a guest whose demand moves, guests that lie, a daemon that is
# killed in the middle, a creation that others make room for, counters and a recording.
#
# run: gic2: --overlay "$work/guests"
# alone: how soon goes by the clock
# hypervisors: nacelle
# timeout: 300
# host: mkdir -p "$work/guests" && cp "$BUILD/payloads/demand" "$work/guests/demand"
# reject: ^FAIL|panicked
. /scenario.sh

# of NAME FIELD: what xl memory says of a domain.
of() { xl memory --json "$1" | sed -n "s/^ *\"$2\": \"\{0,1\}\([^\",]*\)\"\{0,1\},*$/\1/p" | head -n 1; }
# told FIELD: a counter of the host.
told() { xl memory stats --json | sed -n "s/^ *\"$1\": \([0-9]*\),*$/\1/p" | head -n 1; }
# has NAME LOW HIGH: MiB.
has() { now=$(($(of "$1" assigned_kib) / 1024)) && [ "$now" -ge "$2" ] && [ "$now" -le "$3" ]; }
says() { [ "$(of "$1" source)" = "$2" ]; }
complains() { of "$1" complaint | grep -q "$2"; }
# wants NAME MIB
wants() { xenstore-write "/local/domain/$(xl domid "$1")/data/demand" $(($2 * 1024)); }
make() { xl create -q /dev/null 'kernel="/demand"' "$@"; }
refused() {
    what=$1 why=$2
    shift 2
    if "$@" 2>/tmp/why; then fail "$what is not refused"; return; fi
    if grep -q -- "$why" /tmp/why; then echo "ok: $what is refused"; else fail "$what is refused: $(cat /tmp/why)"; fi
}
is_dead() { ! kill -0 "$pid" 2>/dev/null; }
is_back() { [ "$(cat /run/xen/xenmemd.pid)" != "$pid" ] && xl memory >/dev/null 2>&1; }
is_idle() { [ "$(told claimed_kib)" = 0 ]; }

xencommons start
check "the daemon runs" sh -c 'xencommons status | grep -q "xenmemd runs"'
xl memory record /tmp/run.json &

# What cannot be is refused, with its place and a reason.
refused "a minimum above what it starts with" "1:12: error: memory_min=65 MiB is more than memory=64 MiB" make name=x memory=64 memory_min=65
refused "a weight out of range" "from 0 to 10000, not 10001" make name=x memory=64 memory_weight=10001
refused "a buffer out of range" "from 5 to 2000, not 4" make name=x memory=64 memory_buffer=4
refused "a maximum beyond the host" "more than this host has" make name=x memory=64 memory_min=32 maxmem=60000
refused "more than there is" "MiB are free.*asked for" make name=x memory=60000 maxmem=60000

# A guest whose demand grows and falls.
check "a guest starts" make name=a memory=64 memory_min=48 maxmem=256 memory_policy=1
wait_for 60 says a agent || fail "a reports nothing: $(xl memory)"
wants a 150
wait_for 60 has a 150 256 || fail "a does not grow: $(xl memory explain a)"
check "the growth is explained" sh -c 'xl memory explain a | grep -q "^\*.*grow: 64 MiB"'
check "list shows it" sh -c 'xl list -m a | tail -n 1 | grep -q "agent"'
check "top shows it" sh -c 'xl top -b -i 1 -d 0.1 | grep -q "REPORTER"'
refused "a setting out of range" "from 0 to 10000" xl memory a weight=20000
refused "a setting that does not fit" "is more than memory=" xl memory a minimum=100 buffer=30
is "a refused line's buffer" "$(of a buffer)" 20
total=$(xl info | sed -n 's/^total_memory *: *//p')
refused "a minimum that the host cannot hold beside the others'" "others always have" \
    xl memory a "maximum=$total" "startup=$total" "minimum=$total"
is "a refused line's maximum" "$(of a maximum_kib)" 262144
check "settings change while it runs" xl memory a buffer=50 weight=7000 minimum=40
is_set() { [ "$(of a buffer) $(of a weight) $(of a minimum_kib)" = "50 7000 40960" ]; }
wait_for 10 is_set || fail "they do not arrive: $(xl memory a)"

# Guests that lie, and one that falls silent: they stay where they are, and are marked.
for kind in liar dying flood; do
    check "a guest that is $kind starts" make "name=$kind" memory=64 memory_min=32 maxmem=128 "extra=demand.as=$kind"
done
wait_for 60 says liar nonsense || fail "liar: $(xl memory liar)"
wait_for 60 says dying stale || fail "dying: $(xl memory dying)"
wait_for 60 complains flood "times a second" || fail "flood: $(xl memory flood)"
check "the one that is silent stays as it is" has dying 63 65
check "the one that lies stays as it is" has liar 63 65

# The daemon is killed, and there again; when dom0 is short of memory others go first.
pid=$(cat /run/xen/xenmemd.pid)
kill -9 "$pid"
wait_for 20 is_back || fail "the daemon does not come back: $(xencommons status)"
check "the log tells" grep -q "xenmemd ended with status 137" /var/log/xen/xencommons.log
for daemon in xenmemd xenstored; do
    is "the standing of $daemon when memory is short" "$(cat "/proc/$(cat /run/xen/$daemon.pid)/oom_score_adj")" -900
done

# It is killed while memory moves, again and again, with who would start it again; the next ones serve Prometheus.
echo 'XENMEMD_ARGS="--metrics 9100"' >>/etc/default/xencommons
for mib in 40 190 60 180; do
    wants a $mib
    pid=$(cat /run/xen/xenmemd.pid)
    kill -9 "$(cat /run/xen/xenmemd-watch.pid)" "$pid"
    wait_for 10 is_dead || fail "the daemon lives on"
    refused "a question to nobody" "xencommons start" xl memory
    xencommons start
    between "what a is promised" "$(xenstore-read "/local/domain/$(xl domid a)/memory/target")" 40960 262144
done
wait_for 60 has a 180 256 || fail "a does not grow after that: $(xl memory explain a)"
is "targets in XenStore and in the hypervisor" "$(xenstore-read "/local/domain/$(xl domid a)/memory/target")" "$(of a target_kib)"
is "budgets beyond the memory" "$(told budget_violations)" 0
is "domains below their minimum" "$(told minimum_violations)" 0

# A domain is made for which another has to make room.
wants a 20
free=$(xl info | sed -n 's/^free_memory *: *//p')
check "a filler starts" make name=filler "memory=$((free - 20))" "maxmem=$((free - 20))"
# It was made a moment ago, and what it needed last counts: it gives when both are past.
wait_for 90 make name=more memory=70 maxmem=70 2>/tmp/why || fail "a makes no room: $(cat /tmp/why) $(xl memory)"
is "claims that were granted" "$(($(told grants) >= 2))" 1
refused "one more than a can give" "MiB are free.*asked for" make name=last memory=500 maxmem=500
wait_for 10 is_idle || fail "a claim is left: $(told claimed_kib) KiB"

# What others read.
check "Prometheus's text has the counters" sh -c 'xl memory stats --prometheus | grep -q "^nacelle_memory_domain_physical_bytes{domid=\"1\",name=\"a\"} [0-9]"'
scraped() { wget -qO- http://127.0.0.1:9100/metrics | grep -q '^nacelle_memory_domain_target_bytes{domid="1",name="a"} [0-9]'; }
check "Prometheus finds them at the daemon's port" scraped
check "people find Hyper-V's names" sh -c 'xl memory stats | grep -q "Available Memory For Balancing"'
xl memory record -s 2 /tmp/end.json
for recording in /tmp/run.json /tmp/end.json; do
    check "a recording is drawn" xl memory plot -o "$recording.svg" "$recording"
    check "as a picture" sh -c "tail -n 1 $recording.svg | grep -q '</svg>' && grep -q '(domain 1)' $recording.svg"
done
for domain in a liar dying flood filler more; do xl destroy "$domain"; done
finish
