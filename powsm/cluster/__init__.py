"""Jobs, ranks and checks before a run.

checks     look before a long run: environment, GPUs, disk, memory, data
costs      what a training takes, scaled from one that is known
jobs       commands as jobs of any cluster: tries, requeues, what failed
ranks      ranks are started, get signals, and meet before the work
resources  what the jobs of a stage ask for: `conf/cluster/*.yaml`
slurm      Slurm, through submitit
"""
