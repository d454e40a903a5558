#!/usr/bin/env python3
"""Before the stages: is this machine, and are the data, fit for what is planned?

Exit status 1 when something would stop the run; every fault says what to do.
"""

import argparse
import sys
from pathlib import Path

from powsm.cluster import checks as preflight

PACKAGES = ("espnet", "torch", "torchaudio", "lightning", "lhotse", "panphon")
# which folder a stage fills, and which stages run a process on each GPU
FOLDERS = {0: "downloads", 1: "data", 2: "data", 3: "data", 4: "dump", 5: "data"}
ON_GPUS = (11, 12)
OWN_LOOP_BYTES = 8e9  # memory of a process of our loop, which maps the texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--stage", type=int, default=0, help="first stage that is planned")
    add("--stop_stage", type=int, default=13, help="last stage that is planned")
    add("--downloads", type=Path, default=Path("downloads"))
    add("--data", type=Path, default=Path("data"))
    add("--dump", type=Path, default=Path("dump/raw"))
    add("--expdir", type=Path, default=Path("exp"))
    add("--config", type=Path, required=True, help="training YAML")
    add("--test_sets", nargs="*", default=[], help="folders wanted in --dump")
    add("--nj", type=int, default=1, help="processes on the CPU")
    add("--ngpu", type=int, default=0, help="GPUs of this machine")
    add("--nproc", type=int, default=1, help="processes that train on the CPU")
    add("--backend", choices=["local", "slurm"], default="local", help="of cmd.sh")
    add("--cluster", type=Path, help="what Slurm jobs ask for")
    add("--trainer", choices=["powsm", "espnet"], default="powsm")
    add("--costs", type=Path, default=Path("costs.yaml"), help="of the recipe")
    options = parser.parse_args()

    stages = range(options.stage, options.stop_stage + 1)
    findings = preflight.check_environment(PACKAGES)
    if all(finding.level == "ok" for finding in findings):
        if 11 in stages:
            findings += preflight.check_config(options.config)
        if options.backend == "slurm":
            findings += preflight.check_cluster(options.cluster, stages)
        elif set(ON_GPUS) & set(stages):
            gpus = preflight.check_gpus(options.ngpu)
            findings += gpus
            n_ranks = options.ngpu or options.nproc
            if n_ranks > 1 and gpus[0].level == "ok":
                findings += preflight.check_ranks(n_ranks, cuda=options.ngpu > 0)
    findings += resources(options)
    if 11 in stages:
        findings += preflight.check_shared_memory()
    if {0, 1, 3} & set(stages):
        findings += preflight.check_downloads(options.downloads, planned=0 in stages)
    findings += preflight.check_sets(
        options.dump, options.test_sets, planned=4 in stages
    )
    for finding in findings:
        print(f"{finding.level:8}{finding.about:12}{finding.message}")
    faults = sum(finding.level == "fault" for finding in findings)
    print(f"{faults} fault(s)" if faults else "nothing stands in the way")
    sys.exit(1 if faults else 0)


def resources(options: argparse.Namespace) -> list[preflight.Finding]:
    """Disk and memory that the planned stages take, by the recipe's own table."""
    needs: dict[Path, float] = {}
    memory = []
    for stage, row in preflight.read_costs(options.costs).items():
        if not options.stage <= stage <= options.stop_stage:
            continue
        folder = getattr(options, FOLDERS.get(stage, "expdir"))
        needs[folder] = needs.get(folder, 0.0) + preflight.parse_size(row["disk"])
        size = preflight.parse_size(row["memory"])
        if stage == 11 and options.trainer == "powsm":
            size = min(size, OWN_LOOP_BYTES)
        processes = 1
        if "a process" in row["memory"]:
            processes = max(1, options.ngpu) if stage in ON_GPUS else options.nj
        memory.append((size, processes, stage))
    for folder in needs:
        files = folder.rglob("*") if folder.exists() else []
        present = sum(path.stat().st_size for path in files if path.is_file())
        needs[folder] = max(0.0, needs[folder] - present)
    findings = preflight.check_disk(needs)
    if memory:
        findings += preflight.check_memory(*max(memory, key=lambda m: m[0] * m[1]))
    return findings


if __name__ == "__main__":
    main()
