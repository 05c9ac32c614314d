# Debian's xl and ours, on either hypervisor: each says the same of it as the other, and sees what the other did.
#
# run: gic2: --overlay "$work/debian"
# timeout: 200
# host: "$SCENARIOS/debian-xl" "$work/debian"
# reject: ^FAIL
. /scenario.sh

# shellcheck source=tests/scenarios/dom0/agree.sh
. /agree.sh

xencommons stop
mkdir -p /var/lib/xenstored
debian xenstored
sleep 1
debian xen-init-dom0 >/dev/null

for arguments in info "info -n" list "list -v" "list -Z -c -n" "list 0" "list Domain-0" "list nosuch" "list 7" "list -l" \
    vcpu-list "vcpu-list 0" "vcpu-list nosuch" uptime "uptime -s" "domid Domain-0" "domid nosuch" "domname 0" \
    "domname 5" "domname x" sched-credit2 "sched-credit2 -s" "sched-credit2 -d 0" cpupool-list "cpupool-list -c" \
    claims dmesg; do
    # shellcheck disable=SC2086 # words on purpose
    agree $arguments
done

last=$((smp - 1))
check "ours pins vCPU 0" xl vcpu-pin 0 0 "$last"
agree vcpu-list
check "Debian's pins all" debian xl vcpu-pin 0 all all 0
agree vcpu-list
check "ours undoes both" xl vcpu-pin 0 all all all
agree vcpu-list
check "no vCPU is pinned to a CPU that is not there" sh -c '! xl vcpu-pin 0 0 999'

check "Debian's sets a weight" debian xl sched-credit2 -d 0 -w 300
agree sched-credit2
check "ours sets it back" xl sched-credit2 -d 0 -w 256
agree sched-credit2 -d 0

check "ours sets a ceiling" xl mem-max 0 1200
agree list
check "dom0 cannot pause itself" sh -c '! xl pause 0'
agree list

check "Debian's sends a key" debian xl debug-keys h
check "ours finds its effect in the log" sh -c "xl dmesg | grep -q show"
xl dmesg -c >/dev/null
agree dmesg
finish
