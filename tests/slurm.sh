#!/usr/bin/env bash
# A Slurm cluster of two nodes on this one machine, for tests. Needs root, munged, slurmd.
#
# Usage: tests/slurm.sh FOLDER
#   FOLDER  new or empty; receives slurm.conf, logs and state
#
# Prints "ready" when jobs can be submitted with SLURM_CONF=FOLDER/slurm.conf, and stops
# everything when its standard input ends: a test that dies takes its cluster along.
# The nodes are called by their addresses, 127.0.0.2 and 127.0.0.3, so that ranks find
# each other without an entry in /etc/hosts.
set -euo pipefail
folder=$(realpath -m "$1")
export SLURM_CONF=${folder}/slurm.conf
declare -a daemons=()

die() {
    echo "slurm.sh: $*" >&2
    tail -n 5 "${folder}"/*.log >&2 || true
    exit 1
}

# Wait up to SECONDS for a command to succeed.
await() {
    local seconds=$1
    shift
    for ((i = 0; i < 10 * seconds; i++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    return 1
}

no_jobs() { [[ -z $(squeue --noheader) ]]; }
both_idle() { [[ $(sinfo --noheader --Node --format=%T) == $'idle\nidle' ]]; }

stop() {
    local pid
    if [[ -f ${SLURM_CONF} ]]; then
        timeout 10 scancel --user "${USER:-root}" --signal KILL 2>/dev/null || true
        timeout 10 scancel --user "${USER:-root}" 2>/dev/null || true
        await 15 no_jobs || true
    fi
    for pid in "${daemons[@]}"; do
        kill "${pid}" 2>/dev/null || true
    done
    for pid in "${daemons[@]}"; do
        await 10 eval "! kill -0 ${pid}" || kill -9 "${pid}" 2>/dev/null || true
    done
    rm -rf "${folder}"
}

for program in munged slurmctld slurmd sbatch; do
    command -v "${program}" >/dev/null || die "${program} is not installed"
done
[[ ${EUID} -eq 0 ]] || die "only root can run the daemons"
mkdir -p "${folder}"
trap stop EXIT
chmod 755 "${folder}"

# free ports, held until all are chosen
ports=$(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in held))')
read -r control_port first_port second_port <<<"${ports}"

mkdir "${folder}/munge"
dd if=/dev/urandom of="${folder}/munge/key" bs=64 count=1 status=none
chown -R munge "${folder}/munge"
chmod 600 "${folder}/munge/key"
runuser -u munge -- munged --foreground --num-threads 2 \
    --socket "${folder}/munge/socket" --key-file "${folder}/munge/key" \
    --pid-file "${folder}/munge/pid" --seed-file "${folder}/munge/seed" \
    --log-file "${folder}/munge/log" </dev/null >"${folder}/munged.log" 2>&1 &
daemons+=($!)
await 10 test -S "${folder}/munge/socket" || die "munged did not start"

mkdir "${folder}/state"
cat >"${SLURM_CONF}" <<END
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${control_port}
SlurmUser=root
AuthInfo=socket=${folder}/munge/socket,cred_expire=5
StateSaveLocation=${folder}/state
SlurmdSpoolDir=${folder}/spool-%n
SlurmctldPidFile=${folder}/slurmctld.pid
SlurmdPidFile=${folder}/slurmd-%n.pid
SlurmctldParameters=enable_configless
SlurmdParameters=config_overrides
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=10
InactiveLimit=0
WaitTime=1
NodeName=127.0.0.2 NodeAddr=127.0.0.2 Port=${first_port} CPUs=4 RealMemory=16000
NodeName=127.0.0.3 NodeAddr=127.0.0.3 Port=${second_port} CPUs=4 RealMemory=16000
PartitionName=test Nodes=ALL Default=YES MaxTime=60
END

slurmctld -D -f "${SLURM_CONF}" </dev/null >"${folder}/slurmctld.log" 2>&1 &
daemons+=($!)
for node in 127.0.0.2 127.0.0.3; do
    mkdir -p "${folder}/spool-${node}"
    slurmd -D -N "${node}" -f "${SLURM_CONF}" </dev/null \
        >"${folder}/slurmd-${node}.log" 2>&1 &
    daemons+=($!)
done
await 30 both_idle || die "the nodes did not come up"
echo ready
cat >/dev/null
