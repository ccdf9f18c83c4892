#!/bin/bash
# Run a batch script on this machine, without Slurm. What it needs of Slurm is a few variables, `srun` and `scontrol`.
#
#     SLURM_NTASKS=4 examples/slurm/local.sh examples/slurm/job.sbatch python train.py

export SLURM_JOB_ID=${SLURM_JOB_ID:-$$} SLURM_NTASKS=${SLURM_NTASKS:-2}

# Start a command once for each rank. The first that fails ends the others, as --kill-on-bad-exit has it.
srun() (
    while [[ ${1-} == --* ]]; do shift; done
    set -m # each rank is a process group of its own, so that what it has started ends with it
    ranks=()
    trap 'kill -- "${ranks[@]/#/-}" 2>/dev/null || true' EXIT
    for ((rank = 0; rank < SLURM_NTASKS; rank++)); do
        SLURM_PROCID=$rank "$@" &
        ranks+=("$!")
    done
    for rank in "${ranks[@]}"; do
        wait -n || exit
    done
)

scontrol() { echo 127.0.0.1; } # the only node
export -f srun scontrol

exec bash "$@"
