# shellcheck shell=bash
# Where jobs run.
#   local: on this machine; several GPUs through torchrun
#   slurm: inside an allocation (salloc, sbatch); srun starts torchrun on its machines
export cmd_backend=${cmd_backend:-local}
