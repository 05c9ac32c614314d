# What a new user does first: makes the demo guest, logs in, shrinks it to half, grows it to twice its size, shuts it down.
#
# run: gic2: --gic 2
# run: gic3: --gic 3 --smp 4
# run: pi4: --machine raspi4b --hypervisor nacelle
# run: xen: --hypervisor xen
# timeout: 400
# reject: ^FAIL
. /scenario.sh
# shellcheck source=tests/scenarios/dom0/guest.sh
. /guest.sh

check "the services run" xencommons status
free=$(free_memory)
check "the demo guest is made" xl create /etc/xen/demo.cfg
check "it is in xl list" sh -c "xl list | grep -q '^demo '"
open_console demo
check "its console has a login" log_in
is "who is logged in" "$(ask "id -u")" 0
is "the guest runs under" "$(ask "cat /sys/hypervisor/type")" xen
wait_for 60 has_about demo 256 || fail "demo has $(column demo 3) MiB"

# The kernel keeps some of it for itself, and more of what it may grow to.
inside=$(memory_inside)
between "what it sees of 256 MiB" "$inside" 170 256
check "it shrinks to half" xl mem-set demo 128
has_about demo 128 || fail "demo has $(column demo 3) MiB, not 128"
now=$(memory_inside)
between "what it sees has shrunk by, in MiB" $((inside - now)) 118 138
# What devices' buffers are set aside for (CMA) the kernel's own work cannot have.
left=$(ask "awk '/^MemFree:/ { free += \$2 } /^CmaFree:/ { free -= \$2 } END { print int(free / 1024) }' /proc/meminfo")
between "what it then has free for any use, in MiB" "$left" 32 110
check "it grows to twice its size" xl mem-set demo 512
has_about demo 512 || fail "demo has $(column demo 3) MiB, not 512"
now=$(memory_inside)
between "what it sees has grown by, in MiB" $((now - inside)) 240 260
check "it goes back" xl mem-set demo 256
has_about demo 256 || fail "demo has $(column demo 3) MiB, not 256"
is "no warning of its kernel, lines" "$(ask "dmesg | grep -c -e WARNING -e 'Call trace'")" 0

check "the console can be left" leave_console
open_console demo
check "and attached again" [ "$(ask "echo still here")" = "still here" ]
check "it shuts down" xl shutdown -w demo
wait_for 20 is_gone demo || fail "demo is still there"
wait_for 20 sh -c "! kill -0 $console_pid 2>/dev/null" || fail "its console does not end"
exec 9>&-
is "domains that are left" "$(xl list | wc -l)" 2
is "what XenStore has of guests" "$(xenstore-ls -f | grep -c -e demo -e '^/local/domain/[1-9]' -e '^/vm/' -e '^/libxl/[1-9]')" 0
is "files that are left" "$(find /var/lib/xen -name 'userdata-?.[1-9]*' | wc -l)" 0
wait_for 30 free_is "$free" || fail "free memory is $(free_memory) MiB, not $free"
no_new_warnings
finish
