# shellcheck shell=bash
# What a stage driver needs: log, die, in_stage, run_stage, run_once, finish_stages.
#
# The driver that sources this sets: stage, stop_stage, skip_stages, dry_run.
# shellcheck disable=SC2154

log() { printf '%s %s: %s\n' "$(date '+%Y-%m-%dT%H:%M:%S')" "${0##*/}" "$*" >&2; }

die() {
    log "error: $*"
    exit 1
}

# Seconds as "1 h 02 min", "3 min 04 s" or "5 s".
elapsed() {
    local seconds=$1
    if ((seconds >= 3600)); then
        printf '%d h %02d min' $((seconds / 3600)) $((seconds % 3600 / 60))
    elif ((seconds >= 60)); then
        printf '%d min %02d s' $((seconds / 60)) $((seconds % 60))
    else
        printf '%d s' "${seconds}"
    fi
}

current_stage=   # number of the stage that is running; empty between stages
stage_start=0    # SECONDS at its start

end_stage() {
    if [[ -n ${current_stage} && ${dry_run} == false ]]; then
        log "stage ${current_stage} took $(elapsed $((SECONDS - stage_start)))"
    fi
    current_stage=
}

# A stage's entry in ${costs}, lines like the recipe's costs.yaml: `11:` and
# `  key: value`, which awk can read where no Python is installed yet.
costs=
print_cost() {
    [[ -z ${costs} ]] || awk -v stage="$1" '
        /^[0-9]+:$/ { wanted = ($0 == stage ":") }
        wanted && match($0, /^  [A-Za-z-]+: /) {
            cost[substr($0, 3, RLENGTH - 4)] = substr($0, RLENGTH + 1)
        }
        END {
            if ("time" in cost)
                printf "    cost: %s; %s of disk, %s of memory, %s GPU-hours (%s)\n",
                    cost["time"], cost["disk"], cost["memory"], cost["GPU-hours"],
                    cost["basis"]
        }' <<<"${costs}"
}

# True when stage NUMBER is to run; says so. Use: if in_stage 4 "data -> dump: ..."; then
in_stage() {
    local number=$1 title=$2
    end_stage
    ((number >= stage && number <= stop_stage)) || return 1
    if [[ " ${skip_stages} " == *" ${number} "* ]]; then
        log "stage ${number} is skipped: ${title}"
        return 1
    fi
    current_stage=${number}
    stage_start=${SECONDS}
    if [[ ${dry_run} == true ]]; then
        printf '\nstage %s: %s\n' "${number}" "${title}"
        print_cost "${number}"
    else
        log "stage ${number}: ${title}"
    fi
}

# To be called after the last stage.
finish_stages() {
    end_stage
    trap - EXIT
    [[ ${dry_run} == true ]] || log "stages ${stage} to ${stop_stage} are done in" \
        "$(elapsed "${SECONDS}")"
}

report_failure() {
    local status=$?
    [[ ${status} -eq 0 || -z ${current_stage} ]] ||
        log "stage ${current_stage} failed (status ${status}) after" \
            "$(elapsed $((SECONDS - stage_start))); mended, go on with --stage" \
            "${current_stage}"
}
trap report_failure EXIT

# A stage's command runs as the leader of a process group of its own. A signal to this
# script is handed to the leader, which ends its workers or saves what it has, and waited
# for; what then is left of the group is ended.
child=           # the leader; empty while no command runs
caught=          # the signal that came

hand_on() {
    caught=$1
    [[ -n ${child} ]] || exit $((128 + $(kill -l "$1")))
    kill -s "$1" "${child}" 2>/dev/null || true
}
for signal in TERM HUP INT; do
    # shellcheck disable=SC2064  # its value now
    trap "hand_on ${signal}" "${signal}"
done

end_group() {
    local tenth
    kill -s TERM -- "-$1" 2>/dev/null || return 0
    for ((tenth = 0; tenth < 100; tenth++)); do
        kill -s 0 -- "-$1" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -s KILL -- "-$1" 2>/dev/null || true
}

# Run a command and wait for it, whatever signals come; its status.
run_command() {
    local status
    set -m  # a group of its own, in which SIGINT is not ignored
    "$@" </dev/null &
    child=$!
    set +m
    while true; do
        status=0
        wait "${child}" || status=$?
        # a signal to this script ends the wait, not the command
        kill -s 0 "${child}" 2>/dev/null || break
    done
    if [[ -n ${caught} ]]; then
        end_group "${child}"
        child=
        ((status > 0)) || status=$((128 + $(kill -l "${caught}")))
        log "stopped by SIG${caught}"
        exit "${status}"
    fi
    child=
    return "${status}"
}

# Run a stage's command after a look at its inputs; in a dry run, print it instead.
#
# Usage: run_stage OUT INPUT... -- COMMAND...
#   OUT    folder that the command fills
#   INPUT  files and folders that must be there
run_stage() {
    local out=$1
    local -a inputs=()
    shift
    while [[ $1 != -- ]]; do
        inputs+=("$1")
        shift
    done
    shift
    if [[ ${dry_run} == true ]]; then
        printf '    from: %s\n    to:   %s\n    run: ' "${inputs[*]:-nothing}" "${out}"
        printf ' %q' "$@"
        printf '\n'
        return
    fi
    local input
    for input in "${inputs[@]}"; do
        [[ -e ${input} ]] || die "stage ${current_stage} needs ${input}, which is not" \
            "there: run the stage that makes it first (--dry_run lists them)"
    done
    run_command "$@"
    [[ -d ${out} ]] || die "stage ${current_stage} ended without making ${out}"
}

# Called with the words of run_once: prints nothing where there is nothing to do, else the
# record that --keep writes when it is done. What is up to date powsm/files/current.py
# alone says.
unfinished() {
    powsm current --stage "${current_stage}" --record "$1/.done_${current_stage}" \
        --inputs "${@:2}"
}

# run_stage, unless the same command already ended well on the same inputs.
#
# The command that ended leaves a record in OUT, so removing OUT, or a file that was made,
# runs the stage again, and so does a kill.
run_once() {
    if [[ ${dry_run} == true ]]; then
        run_stage "$@"
        return
    fi
    local record=$1/.done_${current_stage} wanted
    wanted=$(unfinished "$@")
    if [[ -z ${wanted} ]]; then
        log "$1 is current"
        return
    fi
    rm -f "${record}"
    run_stage "$@"
    powsm current --stage "${current_stage}" --record "${record}" --keep <<<"${wanted}"
}
