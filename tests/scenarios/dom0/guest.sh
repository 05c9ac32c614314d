# shellcheck shell=sh
# For scenarios with guests: a guest's console, what the guest says of itself, what dom0 sees of it.
#
# `tools=debian` before it is sourced chooses Debian's toolstack (in /debian) instead of ours.
tools=${tools:-ours}
# shellcheck source=tests/scenarios/dom0/agree.sh
. /agree.sh

# x COMMAND...: the xl in question.
x() { if [ "$tools" = debian ]; then debian xl "$@"; else xl "$@"; fi; }

# console NAME: the same for its console. Debian's xl would find its program elsewhere, and only on a terminal listen.
console() {
    if [ "$tools" = debian ]; then
        debian xenconsole "$(x domid "$1")" --num 0 --type pv --interactive
    else
        xl console "$1"
    fi
}

# start_services: XenStore and consoles by the tools in question.
start_services() {
    [ "$tools" = debian ] || { xencommons start; return; }
    xencommons stop
    mkdir -p /var/lib/xenstored /tmp/consoles
    debian xenstored
    sleep 1
    debian xen-init-dom0 >/dev/null
    debian xenconsoled --log=guest --log-dir=/tmp/consoles
}

free_memory() { xl info | sed -n 's/^free_memory *: *//p'; }
# column NAME NUMBER: what xl list says of a domain, in that column.
column() { x list "$1" 2>/dev/null | awk -v column="$2" 'NR == 2 { print $column }'; }
is_gone() { ! x domid "$1" >/dev/null 2>&1; }
# can NAME WHAT: its kernel has said that it takes that request. The node is there from the start, empty.
can() { [ "$(xenstore-read "/local/domain/$(x domid "$1" 2>/dev/null)/control/feature-$2" 2>/dev/null)" = 1 ]; }
is_up() { can "$1" poweroff; }
# asks_for_login NAME: going by its console's log; for the first domain of a name. Before it does, Linux takes a
# request to power off, but its init may not hear of it.
asks_for_login() {
    log=/var/log/xen/console
    [ "$tools" != debian ] || log=/tmp/consoles
    grep -q 'login:' "$log/guest-$1.log" 2>/dev/null
}
# has_about NAME MIB: within 2 MiB, as some pages are no RAM.
has_about() { has=$(column "$1" 3) && [ "${has:-0}" -ge $(($2 - 2)) ] && [ "${has:-0}" -le $(($2 + 2)) ]; }
free_is() { [ "$(free_memory)" = "$1" ]; }

# open_console NAME: attaches to it; what it shows is in /tmp/screen, `type_in` types.
open_console() {
    rm -f /tmp/keys
    mkfifo /tmp/keys
    console "$1" </tmp/keys >/tmp/screen 2>&1 &
    console_pid=$!
    exec 9>/tmp/keys
}
type_in() { printf '%s\r' "$1" >&9; }
sees() { tr -d '\r' </tmp/screen | grep -qaE -- "$1"; }
# leave_console: by Ctrl-], typed alone; whether it came back.
leave_console() {
    sleep 1
    printf '\035' >&9
    wait_for 10 sh -c "! kill -0 $console_pid 2>/dev/null"
    left=$?
    exec 9>&-
    kill "$console_pid" 2>/dev/null
    wait "$console_pid" 2>/dev/null
    return $left
}

# log_in: on the console that is open. A guest that is slow may have lost what was typed before it listened.
log_in() {
    wait_for "${1:-120}" sees 'login:' && type_in root && ask "echo ready" >/dev/null && return
    echo "the console shows:"
    tail -n 20 /tmp/screen
    return 1
}

# ask COMMAND: what it prints in the guest, one line. It is called in subshells, so a file counts the questions.
echo 0 >/tmp/asked
ask() {
    asked=$(($(cat /tmp/asked) + 1))
    echo $asked >/tmp/asked
    for _ in 1 2 3; do
        type_in "echo answer-$asked:\$($1):"
        wait_for 20 sees "^answer-$asked:[^\$]*:\$" && break
    done
    tr -d '\r' </tmp/screen | sed -n "s/^answer-$asked:\\([^\$]*\\):\$/\\1/p" | tail -n 1
    sees "^answer-$asked:"
}
# What the guest sees of its memory, in MiB.
memory_inside() { ask "free -m | awk '/^Mem/ {print \$2}'"; }
