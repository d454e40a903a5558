"""Jobs, ranks and checks before a run.

checks     look before a long run: environment, attention, GPUs, disk, memory, data
jobs       run commands as Slurm jobs through submitit: arrays with bounded ...
ranks      the ranks of a run meet before the work: who came, and does an ...
resources  what the jobs of a stage ask Slurm for: `conf/cluster/*.yaml`
"""
