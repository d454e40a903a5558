"""Look before a long run: environment, attention, GPUs, disk, memory, data.

Each check gives findings; a fault says what to do about it. Nothing is written.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from powsm.cluster.resources import ClusterError, load_resources
from powsm.cluster.slurm import ask_slurm
from powsm.corpora.ipapack import find_faults, read_manifest
from powsm.hub import HubError

UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
PYTHONS = ((3, 12), (3, 14))  # first one, and the first that is too new
SHARD_FILES = {"cuts": "*.jsonl.gz", "recording": "*.tar"}
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container or a Slurm job
SHARED_MEMORY = Path("/dev/shm")  # through which a loader's workers hand on batches
RANKS_MEET_S = 120.0  # seconds that ranks of one machine may take to meet
RANKS_S = 300.0  # with starting PyTorch, which a cold network disk makes slow
SHARED_BYTES = 2e9  # 64 clips of 20 s from 4 workers, twice, and as much again


@dataclass(frozen=True)
class Finding:
    """One line of the report: `level` says whether a run can go on."""

    level: Literal["ok", "warning", "fault"]
    about: str
    message: str


def parse_size(text: str) -> float:
    """Bytes of the first size in a text; 0 when there is none.

    >>> parse_size("1.8 TB"), parse_size("1 GB a process"), parse_size("0")
    (1800000000000.0, 1000000000.0, 0.0)
    """
    size = re.search(r"([\d.]+) ([kMGT]B)", text)
    return float(size[1]) * UNITS[size[2]] if size else 0.0


def check_environment(packages: Iterable[str]) -> list[Finding]:
    """Python's version and that of each package."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:
        message = f"{version}, but 3.12 or 3.13 is needed: run make env"
        return [Finding("fault", "python", message)]
    findings = [Finding("ok", "python", f"{version} at {sys.executable}")]
    for name in packages:
        try:
            found = importlib.metadata.version(name)
            findings.append(Finding("ok", name, found))
        except importlib.metadata.PackageNotFoundError:
            message = "is not installed: run make env"
            findings.append(Finding("fault", name, message))
    return findings


def check_attention(settings: Mapping) -> list[Finding]:
    """Whether the kernels that a training configuration asks for are there."""
    asks = {
        key
        for part in ("encoder_conf", "decoder_conf")
        for key in ("use_flash_attn", "use_sdpa")
        if (settings.get(part) or {}).get(key)
    }
    if "use_flash_attn" in asks and importlib.util.find_spec("flash_attn") is None:
        message = (
            "use_flash_attn is set, but flash_attn is not installed: ESPnet takes its "
            "plain attention, which is slower and needs more memory; set "
            "use_flash_attn: false and use_sdpa: true in encoder_conf and decoder_conf"
        )
        return [Finding("warning", "attention", message)]
    if "use_flash_attn" in asks:
        return [Finding("ok", "attention", "flash_attn")]
    if "use_sdpa" in asks:
        return [Finding("ok", "attention", "PyTorch's scaled_dot_product_attention")]
    message = "neither use_sdpa nor use_flash_attn is set: slower, and more memory"
    return [Finding("warning", "attention", message)]


def check_gpus(wanted: int) -> list[Finding]:
    """Whether this machine has the GPUs of a run."""
    from powsm.cluster.ranks import RankError, look_at_gpus  # which load torch

    try:
        return [Finding("ok", "GPUs", look_at_gpus(wanted))]
    except RankError as err:
        return [Finding("fault", "GPUs", str(err))]


def check_ranks(n_ranks: int, *, cuda: bool) -> list[Finding]:
    """Whether the processes of a run on this machine meet and sum a number."""
    from powsm.cluster.ranks import ERROR

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local_addr", "127.0.0.1"]  # a name of the machine need not resolve
    command += ["--nproc_per_node", str(n_ranks), "-m", "powsm.cluster.ranks"]
    command += ["cuda" if cuda else "cpu", str(RANKS_MEET_S)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RANKS_S, check=False
        )
    except subprocess.TimeoutExpired:
        message = f"{n_ranks} processes did not meet within {RANKS_S:.0f} s"
        return [Finding("fault", "ranks", message)]
    backend = "NCCL" if cuda else "gloo"
    if done.returncode == 0:
        message = f"{done.stdout.splitlines()[0]}: all-reduce by {backend}"
        return [Finding("ok", "ranks", message)]
    errors = [x for x in done.stderr.splitlines() if x.startswith(ERROR)]
    message = errors[0] if errors else f"torchrun ended with status {done.returncode}"
    message = message.removeprefix(ERROR)
    return [Finding("fault", "ranks", f"all-reduce by {backend}: {message}")]


def check_cluster(path: Path, stages: Iterable[int]) -> list[Finding]:
    """Whether Slurm would take the jobs of the planned stages; nothing is submitted."""
    findings = []
    try:
        for stage, resources in load_resources(path).items():
            if stage in stages:
                answer = ask_slurm(stage, resources)
                findings.append(Finding("ok", "slurm", f"stage {stage}: {answer}"))
    except ClusterError as err:
        findings.append(Finding("fault", "slurm", " ".join(str(err).split())))
    return findings


def check_disk(needs: Mapping[Path, float]) -> list[Finding]:
    """Free space for what is to be written, summed over folders of one disk.

    Args:
        needs: folder -> bytes still to be written in it. It need not exist yet.
    """
    disks: dict[int, list[tuple[Path, float]]] = {}
    for folder, size in needs.items():
        parent = folder.absolute()
        while not parent.exists():
            parent = parent.parent
        disks.setdefault(parent.stat().st_dev, []).append((parent, size))
    findings = []
    for parts in disks.values():
        folder, need = parts[0][0], sum(size for _, size in parts)
        free = shutil.disk_usage(folder).free
        message = f"{free / 1e9:,.0f} GB free at {folder}, {need / 1e9:,.1f} GB needed"
        if locked := [f for f, size in parts if size and not os.access(f, os.W_OK)]:
            message += f", and {locked[0]} cannot be written: choose another (db.sh)"
        elif free < need:
            message += ": put the folders elsewhere (db.sh) or make room"
        level = "fault" if locked or free < need else "ok"
        findings.append(Finding(level, "disk", message))
    return findings


def check_memory(need: float, processes: int, stage: int) -> list[Finding]:
    """Memory that this machine or job has against what the hungriest stage takes.

    Args:
        need: bytes of one process.
        processes: how many run at once.
        stage: the one that takes most.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if CGROUP_LIMIT.exists() and (limit := CGROUP_LIMIT.read_text().strip()).isdigit():
        total = min(total, int(limit))
    need *= processes
    message = f"{total / 1e9:,.0f} GB, {need / 1e9:,.1f} GB needed by stage {stage}"
    if total < need:
        message += ": go to a larger machine"
        message += f", or lower --nj or --ngpu ({processes} processes)" * (
            processes > 1
        )
        return [Finding("fault", "memory", message)]
    return [Finding("ok", "memory", message)]


def check_shared_memory() -> list[Finding]:
    """Whether the workers of a loader can hand on their batches; a container's default
    of 64 MB ends training with a bus error."""
    if not SHARED_MEMORY.exists():
        return []
    free = shutil.disk_usage(SHARED_MEMORY).free
    message = f"{free / 1e9:,.1f} GB free in {SHARED_MEMORY}"
    if free < SHARED_BYTES:
        message += ", 2 GB needed: start the container with --shm-size=8g"
    return [Finding("fault" if free < SHARED_BYTES else "ok", "workers", message)]


def check_downloads(downloads: Path, *, planned: bool) -> list[Finding]:
    """Whether all shards are here, with their sizes where stage 0 fetched them.

    Args:
        planned: stage 0 is to run, so what is missing does no harm.
    """
    level = "warning" if planned else "fault"
    try:
        files = read_manifest(downloads)
    except HubError:
        return check_shards(downloads, level)
    faults = list(find_faults(files, downloads))
    findings = [Finding(level, "data", fault) for fault in faults[:5]]
    if len(faults) > 5:
        findings.append(Finding(level, "data", f"and {len(faults) - 5:,} files more"))
    if not faults:
        message = f"{len(files):,} files in {downloads}, all with the hub's sizes"
        findings.append(Finding("ok", "data", message))
    return findings


def check_shards(
    downloads: Path, level: Literal["warning", "fault"] = "fault"
) -> list[Finding]:
    """Whether every cuts file of a Shar folder has its recording, and the reverse.

    Args:
        level: of what is missing.
    """
    findings = []
    for split in sorted(p for p in downloads.glob("*_shar/*") if p.is_dir()):
        numbers = {
            field: {
                path.name.split(".")[1] for path in split.glob(f"{field}.{pattern}")
            }
            for field, pattern in SHARD_FILES.items()
        }
        name = f"{split.parent.name}/{split.name}"
        for field, other in (("cuts", "recording"), ("recording", "cuts")):
            if lacking := sorted(numbers[other] - numbers[field]):
                message = (
                    f"{name}: no {field} for shard {' '.join(lacking[:5])}"
                    f"{' ...' if len(lacking) > 5 else ''}: run stage 0 again"
                )
                findings.append(Finding(level, "data", message))
        if numbers["cuts"] and numbers["cuts"] == numbers["recording"]:
            message = f"{name}: {len(numbers['cuts'])} shards"
            findings.append(Finding("ok", "data", message))
    if not findings:
        message = f"no *_shar/<split> in {downloads} yet: stage 0 makes them"
        findings.append(Finding(level, "data", message))
    return findings


def check_sets(dump: Path, test_sets: Iterable[str], *, planned: bool) -> list[Finding]:
    """Whether train, dev and the test sets wanted are in the dump folder.

    Args:
        planned: stage 4 is to run, so what is missing does no harm.
    """
    wanted = ["train", "dev", *test_sets]
    lacking = [name for name in wanted if not (dump / name / "text").exists()]
    level = "warning" if planned else "fault"
    if len(lacking) == len(wanted):
        message = f"nothing in {dump} yet: stages 1 to 4 make it"
        return [Finding(level, "sets", message)]
    if lacking:
        message = f"{' '.join(lacking)} not in {dump}: see data/<set>, run stage 4"
        return [Finding(level, "sets", message)]
    return [Finding("ok", "sets", f"{len(wanted)} in {dump}")]
