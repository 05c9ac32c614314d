# shellcheck shell=sh
# For scenarios with the balancer: guests of the payload `demand`, what they want, and what the balancer says of them.

log() { tr -d '\r' <"/var/log/xen/console/guest-$1.log" 2>/dev/null; }

# demand_guest NAME OPTION...: a guest that holds what `wants` says, 32 MiB for certain unless an option says otherwise.
demand_guest() {
    name=$1
    shift
    check "$name starts" xl create -q /dev/null "name=\"$name\"" 'kernel="/demand"' memory=64 memory_min=32 maxmem=512 \
        memory_policy=1 "$@"
}
# wants NAME MIB
wants() { xenstore-write "/local/domain/$(xl domid "$1")/data/demand" $(($2 * 1024)); }
# holds NAME MIB: all that it wants, and it wants that.
holds() { log "$1" | grep '^demand: wants' | tail -n 1 | grep -q "wants $(($2 * 1024)) KiB, holds $(($2 * 1024)):"; }
# took NAME MIB: how many milliseconds after it wanted that it held it, by its own clock.
took() {
    all=$(($2 * 1024))
    log "$1" | sed -n "s/^demand: wants $all KiB, holds $all: satisfied after \([0-9]*\) ms$/\1/p" | tail -n 1
}
# shorts NAME: how often it was short of anything.
shorts() { log "$1" | grep -c '^demand: .* short after'; }

# of NAME KEY: what the balancer says of a domain; of its inner structures, too, by their keys.
of() {
    xl memory list --json | awk -v name="\"$1\"" -v key="\"$2\":" '
        { sub(/,$/, "") }
        $1 == "\"name\":" { is = $2 == name }
        is && $1 == key && !done { gsub(/"/, "", $2); print $2; done = 1 }'
}
# mib NAME KEY: the same for an amount.
mib() { echo $(($(of "$1" "$2") / 1024)); }
# of_host KEY
of_host() { xl memory list --json | sed -n "s/^        \"$1\": \([^,]*\),*$/\1/p"; }
is_of() { [ "$(of "$1" "$2")" = "$3" ]; }
# at_most NAME MIB, at_least NAME MIB: what it has.
at_most() { [ "$(mib "$1" assigned_kib)" -le "$2" ]; }
at_least() { [ "$(mib "$1" assigned_kib)" -ge "$2" ]; }
# operations: targets that were written since the daemon's start.
operations() {
    xl memory list --json | awk '
        /^    "host"/ { is = 1 }
        /^    "domains"/ { is = 0 }
        is && /"(add|remove)_operations"/ { sum += $2 }
        END { print sum + 0 }'
}
# at_rest: no target was written for five seconds.
at_rest() {
    local before
    before=$(operations)
    sleep 5
    [ "$(operations)" = "$before" ]
}

# bounds_held RECORD: in no sample does a domain have less than its minimum, or are all together to have more than the host
# has, counting for each what it has or is to have, whichever is more.
bounds_held() {
    awk -F '[:,{}]' '
        {
            total = used = has = 0
            for (i = 1; i < NF; i++) {
                value = $(i + 1)
                if ($i == "\"total_kib\"") total = value
                if ($i == "\"assigned_kib\"") has = value
                if ($i == "\"target_kib\"") used += (target = value) > has ? target : has
                if ($i == "\"minimum_kib\"" && (has < value || target < value)) { print "below its minimum: " $0; bad = 1 }
            }
            if (used > total) { print "beyond the host: " $0; bad = 1 }
            samples++
        }
        END { print samples + 0 " moments"; exit bad || !samples }' "$1"
}

# bounds_are_told: bounds_held finds each of them broken.
bounds_are_told() {
    sample() {
        printf '{"host":{"total_kib":1000},"domains":[{"assigned_kib":%s,"target_kib":%s,"minimum_kib":300},{"assigned_kib":400,"target_kib":400,"minimum_kib":100}]}\n' \
            "$1" "$2" >/tmp/sample
        bounds_held /tmp/sample >/dev/null
    }
    sample 600 600 && sample 300 600 && ! sample 601 300 && ! sample 300 601 && ! sample 299 300 && ! sample 300 299
}
