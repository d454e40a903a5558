"""Jobs, ranks and checks before a run.

checks     look before a long run: environment, GPUs, disk, memory, data
jobs       commands as jobs of any cluster: tries, requeues, what failed
launch     the ranks of a run on this machine, and signals to them
ranks      the ranks of a run meet before the work
resources  what the jobs of a stage ask for: `conf/cluster/*.yaml`
slurm      Slurm, through submitit
"""
