#!/usr/bin/env bash
# Any recipe as a Slurm job: its training is spread over all GPUs of several nodes, and goes on by itself after a stop.
#
#     sbatch [--nodes N] [--gpus-per-node G] [--time T] recipes/slurm.sh recipes/wmt16_en_de.sh --arm ba --micro-batches 8
#
# What follows the recipe's name goes to the recipe. Not under sbatch, it is `bash recipes/slurm.sh --help`.
#
# Needs    seqba's folder, its environment (or SEQBA_VENV), --from and --out on a file system that all nodes see. An
#          update needs at least as many cells (--micro-batches x --copies) as there are GPUs. Make the corpus and the
#          environment beforehand where compute nodes have no network: a call of the recipe with --updates 1 does it.
#          SEQBA_RANKS_PER_NODE=R starts R processes on each node instead of one for each of its GPUs.
# Stops    Slurm sends SIGTERM three minutes before the time is up. B: has it sent to this script alone: bash would obey
#          no signal before a recipe in the foreground ends, so that the recipe runs in the background, in a process
#          group of its own, and the trap hands the signal on to it. srun forwards it to the nodes, torchrun to its
#          processes, and all of them finish the same update; rank 0 writes checkpoint_last. torchrun kills what is left
#          after TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds, 150 where it isn't set, inside Slurm's three minutes: raise both
#          for a model that takes longer. Before torch 2.12 it always waits 30 s.
#          Then the job puts itself back into the queue: --requeue alone is for nodes that fail and jobs that are
#          preempted, not for time that is up. A job that is preempted gets the signal only where the cluster sets
#          PreemptParameters=send_user_signal; else it loses the updates since the last checkpoint.
# Fails    a process that dies is started again by torchrun, three times, with all others, from the last checkpoint. A
#          recipe that fails for another reason ends the job, which is not put back.
#
# The log of a job that was put back is continued, not overwritten. A second call with the same arguments goes on where
# the first one stopped.
#
#SBATCH --job-name=seqba
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# Slurm runs a copy of this script that lies elsewhere: the recipe's own path says where everything is.
recipe="${1:-}"
if [[ ! -f "$recipe" || ! -f "$(dirname "$recipe")/environment.sh" ]]; then
    case "$recipe" in
        -h | --help) awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0" && exit ;;
    esac
    echo "error: '$recipe' is not a recipe; give its path: sbatch recipes/slurm.sh recipes/wmt16_en_de.sh ..." >&2
    exit 2
fi
shift
source "$(dirname "$recipe")/environment.sh"
[[ -n "${SLURM_JOB_ID:-}" ]] || seqba_fail "no SLURM_JOB_ID: start it with sbatch recipes/slurm.sh $recipe ..."

per_node="${SEQBA_RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}"
seqba_count SEQBA_RANKS_PER_NODE "$per_node"
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
((${#hosts[@]} == SLURM_JOB_NUM_NODES)) || seqba_fail "scontrol names ${#hosts[@]} of $SLURM_JOB_NUM_NODES nodes"

# Two jobs on one node must not meet at one port.
meeting="${hosts[0]}:$((20000 + SLURM_JOB_ID % 20000))"
[[ -z "${SLURM_CPUS_PER_TASK:-}" ]] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK" # srun no longer inherits it
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-150}" # no option: torchrun before 2.12 has none
# Ranks elsewhere end while rank 0 still writes: srun must not kill one node because another one has ended.
export SEQBA_LAUNCH="srun --nodes=${#hosts[@]} --ntasks=${#hosts[@]} --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 \
torchrun --nnodes=${#hosts[@]} --nproc-per-node=$per_node --max-restarts=3 \
--rdzv-backend=c10d --rdzv-endpoint=$meeting --rdzv-id=$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
seqba_step "$recipe on ${#hosts[@]} nodes of $per_node processes, meeting at $meeting"

stopped="" group=""
hand_on() {
    [[ -z "$group" ]] || kill -TERM -- "-$group" 2>/dev/null || true
}
stop() {
    stopped=yes
    trap : TERM
    hand_on
}

trap stop TERM
set -m # the recipe gets a process group
bash "$recipe" "$@" &
group=$!
[[ -z "$stopped" ]] || hand_on # it came before there was a group
wait "$group" || true
while kill -0 -- "-$group" 2>/dev/null; do # the recipe's shell dies at once; what it started writes its checkpoint
    sleep 1
done
status=0
wait "$group" || status=$? # again: a signal ends the first one
if [[ -n "$stopped" ]] && ((status != 0)); then
    seqba_step "stopped; job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
