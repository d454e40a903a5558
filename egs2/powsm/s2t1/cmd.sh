# shellcheck shell=bash
# Where jobs run.
#   local: on this machine; a process for each GPU
#   slurm: stages 1, 4, 11 and 12 as Slurm jobs that ask for what --cluster FILE says;
#          run.sh waits for them on a machine of the cluster (login node, tmux)
export cmd_backend=${cmd_backend:-local}
