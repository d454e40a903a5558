"""Before the stages: is this machine, and are the data, fit for what is planned?

Exit status 1 when something would stop the run; every fault says what to do. With
--gpu nothing of that is looked at: one card is measured with the model of --config, in
at most eight minutes, and one JSON line says what it makes of our code and of ESPnet's.
With --io the audio of <dump>/train is read in the order of training, and one JSON line
says how many bytes and reads a second that gives, and how many a GPU asks for.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.cli.cost import add_settings, cost_rows
from powsm.cli.options import add_shared, refuse_unused, whole
from powsm.cli.stages.train import look
from powsm.errors import PowsmError

if TYPE_CHECKING:
    from powsm.cluster.checks import Finding

PACKAGES = ("espnet", "torch", "torchaudio", "lightning", "lhotse", "panphon")
# which folder a stage fills, and which stages run a process on each GPU
FOLDERS = {0: "downloads", 1: "data", 2: "data", 3: "data", 4: "dump", 5: "data"}
ON_GPUS = (11, 12)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--stage", type=whole(), default=0, help="first stage that is planned")
    add("--stop_stage", type=whole(), default=13, help="last stage that is planned")
    add_settings(parser)
    add_shared(parser, "--downloads", "--data")
    add("--expdir", type=Path, default=Path("exp"))
    add_shared(parser, "--exp", required=False, help="that would be trained")
    add_shared(parser, "--token_dir", required=False, help="of it")
    add_shared(parser, "--stats")
    add_shared(parser, "--nj")
    add("--nproc", type=whole(1), default=1, help="processes that train on the CPU")
    add("--backend", choices=["local", "slurm"], default="local", help="of cmd.sh")
    add("--cluster", type=Path, help="what Slurm jobs ask for")
    # of `powsm train`, whose look at an experiment this command takes
    parser.set_defaults(train_set="train", valid_set="dev", dry_run=True)
    add("--gpu", action="store_true", help="measure a GPU of this machine instead")
    add("--io", action="store_true", help="measure how fast audio is read instead")
    add("--tiny", action="store_true", help="with --gpu: a small model, on any machine")
    parser.set_defaults(profiles=[])


def run(options: argparse.Namespace) -> int:
    refuse_unused(options, "tiny", why="there is no --gpu", unless=options.gpu)
    if options.gpu:
        return measure_gpu(options.config, is_tiny=options.tiny)
    if options.io:
        return measure_io(options)
    from powsm.cluster import checks

    stages = range(options.stage, options.stop_stage + 1)
    findings = checks.check_environment(PACKAGES)
    if all(finding.level == "ok" for finding in findings):
        if 11 in stages:
            findings += training(options)
        if options.backend == "slurm":
            findings += checks.check_cluster(options.cluster, stages)
        elif set(ON_GPUS) & set(stages):
            gpus = checks.check_gpus(options.ngpu)
            findings += gpus
            n_ranks = options.ngpu or options.nproc
            if n_ranks > 1 and gpus[0].level == "ok":
                findings += checks.check_ranks(n_ranks, cuda=options.ngpu > 0)
    findings += resources(options)
    if 11 in stages:
        findings += checks.check_shared_memory()
    if {0, 1, 3} & set(stages):
        findings += checks.check_downloads(options.downloads, planned=0 in stages)
    findings += checks.check_sets(options.dump, options.test_sets, planned=4 in stages)
    for finding in findings:
        print(f"{finding.level:8}{finding.about:12}{finding.message}")
    faults = sum(finding.level == "fault" for finding in findings)
    print(f"{faults} fault(s)" if faults else "found no fault")
    return 1 if faults else 0


def training(options: argparse.Namespace) -> list["Finding"]:
    """Whether the experiment may be trained with its settings, tokens and data."""
    from powsm.cluster import checks
    from powsm.train import config

    try:
        settings = config.load(options.config, options.overrides)
        if options.exp and options.token_dir:
            look(options, settings)
    except (OSError, PowsmError) as err:
        return [checks.Finding("fault", "config", " ".join(str(err).split()))]
    about = checks.Finding("ok", "config", str(options.config))
    return [about, *checks.check_attention(settings)]


def measure_gpu(config: Path, *, is_tiny: bool) -> int:
    """Print what one card makes of our code, as a JSON line.

    Raises:
        PowsmError: there is no GPU, and the full size is wanted.
    """
    import torch

    from powsm.train.gpu.sections import check_gpu

    if not (is_tiny or torch.cuda.is_available()):
        raise PowsmError(
            "--gpu: PyTorch finds no GPU here: see nvidia-smi, or add --tiny to run "
            "the sections on the CPU"
        )
    with contextlib.redirect_stdout(sys.stderr):  # ESPnet prints
        sections = check_gpu(config, is_tiny=is_tiny)
    print(json.dumps(sections))
    return int(any("error" in section for section in sections.values()))


def measure_io(options: argparse.Namespace) -> int:
    """Print how fast a training set is read, as a JSON line."""
    from powsm.train.gpu.reading import check_io

    folder = options.dump / options.train_set
    print(json.dumps(check_io(options.config, options.overrides, folder)))
    return 0


def resources(options: argparse.Namespace) -> list["Finding"]:
    """Disk and memory that the planned stages take with these settings."""
    from powsm.cluster import checks
    from powsm.cluster.costs import read_costs

    try:
        rows = cost_rows(options)
    except (OSError, PowsmError):  # of the configuration: a finding already
        rows = read_costs(options.costs)
    needs: dict[Path, float] = {}
    memory = []
    for stage, row in rows.items():
        if not options.stage <= stage <= options.stop_stage:
            continue
        folder = getattr(options, FOLDERS.get(stage, "expdir"))
        needs[folder] = needs.get(folder, 0.0) + checks.parse_size(row["disk"])
        size = checks.parse_size(row["memory"])
        processes = 1
        if "a process" in row["memory"]:
            processes = max(1, options.ngpu) if stage in ON_GPUS else options.nj
        memory.append((size, processes, stage))
    for folder in needs:
        files = folder.rglob("*") if folder.exists() else []
        present = sum(path.stat().st_size for path in files if path.is_file())
        needs[folder] = max(0.0, needs[folder] - present)
    findings = checks.check_disk(needs)
    if memory:
        findings += checks.check_memory(*max(memory, key=lambda m: m[0] * m[1]))
    return findings
