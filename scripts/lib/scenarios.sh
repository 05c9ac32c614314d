# shellcheck shell=bash
# Runs the scenarios of tests/scenarios. Sourced by scripts/test, after common.sh. Works below $WORK.
#
# A scenario is a shell script that runs in dom0; its first comment lines say how to boot and what to expect:
#
#   # run: VARIANT: OPTIONS    boot with these options of scripts/run; one line for each variant, which may name its
#                              own --hypervisor
#   # hypervisors: NAME...     where it can run: nacelle, xen; default both
#   # timeout: SECONDS         default 120
#   # alone: REASON            keeps every CPU of the host busy, or goes by the clock: no other runs beside it
#   # host: COMMAND            on the host, before ($work is an empty directory that the options may name too)
#   # expect: REGEX            must be on the console (extended regular expression, one line)
#   # reject: REGEX            must not be on the console
#   # after: COMMAND           on the host, after; must succeed
#   # command: COMMAND         instead of scripts/run, for a command that is to be tested to the letter; what follows
#                              the variant's name is then ${options[@]}
#
# A script of comments alone boots without a script: its `run` lines then say what is to boot, and when to stop
# (--until). In dom0 the files of tests/scenarios/dom0 are in /, and /scenario.env tells $hypervisor, $variant, $machine,
# $smp, $gic, $mem (MiB), and what SOAK_SECONDS and CYCLES say.

SCENARIOS=$ROOT/tests/scenarios

# header FILE KEY: the values of the lines `# KEY: value`.
header() { sed -n "s/^# $2: *//p" "$1"; }

# scenario_names [GLOB]: `FILE:VARIANT` of each that matches.
scenario_names() {
    local file line name
    for file in "$SCENARIOS"/*.sh; do
        while read -r line; do
            name=$(basename "$file" .sh):${line%%:*}
            # shellcheck disable=SC2053 # a pattern on purpose
            [[ $name == ${1:-*} ]] && echo "$name"
        done < <(header "$file" run)
    done
    return 0
}

# is_alone FILE:VARIANT: whether no other may run beside it. What boots a single CPU leaves one of the host's to others.
is_alone() {
    local file=$SCENARIOS/${1%%:*}.sh
    [[ -n $(header "$file" alone) ]] && ! header "$file" run | grep -qE "^${1#*:}:.* (--icount|--smp 1)( |$)"
}

# run_scenario FILE:VARIANT HYPERVISOR LOG: 0 passed, 1 failed, 3 skipped. Says why in the last line of its output.
run_scenario() {
    local file=$SCENARIOS/${1%%:*}.sh variant=${1#*:} hypervisor=$2 log=$3
    local line timeout options=() machine=virt smp=2 gic=2 mem=3G work status=0 i reason=""
    if ! grep -qw -- "$hypervisor" <<<"$(header "$file" hypervisors | grep . || echo nacelle xen)"; then
        echo "not for $hypervisor"
        return 3
    fi
    work=$(mktemp -d "${WORK:-$BUILD}/scenario.XXXXXX")
    : >"$log"
    while read -r line; do
        eval "$line" </dev/null >>"$log" 2>&1 || reason="'$line' failed on the host"
    done < <(header "$file" host)
    line=$(header "$file" run | sed -n "s/^$variant: *//p")
    eval "options=($line)"
    for i in "${!options[@]}"; do
        case ${options[i]} in
        --machine) machine=${options[i + 1]} ;;
        --smp) smp=${options[i + 1]} ;;
        --gic) gic=${options[i + 1]} ;;
        --mem) mem=${options[i + 1]} ;;
        --hypervisor) hypervisor=${options[i + 1]} ;;
        esac
    done
    [[ $machine != raspi4b ]] || { smp=4 mem=2G; }
    if grep -qvE '^(#.*)?$' "$file"; then
        mkdir "$work/overlay"
        cp -r "$SCENARIOS/dom0/." "$work/overlay/"
        printf '%s=%s\n' hypervisor "$hypervisor" variant "$variant" machine "$machine" smp "$smp" gic "$gic" mem "$((${mem%G} * 1024))" \
            SOAK_SECONDS "${SOAK_SECONDS:-40}" CYCLES "${CYCLES:-6}" >"$work/overlay/scenario.env"
        options+=(--overlay "$work/overlay" --exec "$file")
    fi
    timeout=$(header "$file" timeout)
    line=$(header "$file" command)
    if [[ -n $line ]]; then
        eval "timeout -k 5 ${timeout:-120} $line" </dev/null >>"$log" 2>&1 || status=$?
    else
        "$ROOT/scripts/run" --no-build --hypervisor "$hypervisor" --timeout "${timeout:-120}" \
            "${options[@]}" >>"$log" 2>&1 || status=$?
    fi
    ((status == 0)) || reason="${reason:+$reason; }status $status"
    sed -i 's/\r//g' "$log"
    while read -r line; do
        grep -qE -- "$line" "$log" || reason="${reason:+$reason; }no line matches '$line'"
    done < <(header "$file" expect)
    while read -r line; do
        ! grep -qE -- "$line" "$log" || reason="${reason:+$reason; }a line matches '$line'"
    done < <(header "$file" reject)
    while read -r line; do
        eval "$line" </dev/null >>"$log" 2>&1 || reason="${reason:+$reason; }'$line' failed on the host"
    done < <(header "$file" after)
    rm -rf "$work"
    line=$(sed -n 's/^FAIL: //p' "$log" | tr '\n' ';')
    echo "${reason:+$reason. $line}"
    [[ -z $reason ]]
}
