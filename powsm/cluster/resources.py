"""What the jobs of a stage ask Slurm for: `conf/cluster/*.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from powsm.errors import PowsmError
from powsm.settings import ConfigError, load_yaml, nearest

_STAGES = (1, 4, 11, 12)


class ClusterError(PowsmError):
    """Jobs cannot be submitted, or failed for good; the message names their logs."""


@dataclass(frozen=True)
class Resources:
    """What Slurm is asked for, for each job of a stage.

    Attributes:
        time_min: minutes until Slurm ends the job.
        cpus: of each process; a job without GPUs starts as many workers.
        mem_gb: of each machine.
        gpus: of each machine; training runs a process for each, decoding takes one.
        nodes: machines; only training takes more than one.
        jobs: members of an array that run at once.
        retries: how often a job that failed is submitted again.
        partition, account, qos, constraint: as in sbatch; None: Slurm's default.
    """

    time_min: int
    cpus: int
    mem_gb: float
    gpus: int = 0
    nodes: int = 1
    jobs: int = 1
    retries: int = 2
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None

    @property
    def ranks(self) -> int:
        """Processes of each machine in training."""
        return max(1, self.gpus)


def load_resources(path: Path) -> dict[int, Resources]:
    """Read `conf/cluster/*.yaml`: `all` for every stage, `stages` for single ones.

    Returns:
        Stage number -> resources.

    Raises:
        ClusterError: lists every unknown key, wrong value and missing stage at once.
    """
    try:
        config = load_yaml(path)
    except OSError as err:
        raise ClusterError(f"{path}: {err.strerror}; see --cluster") from err
    except ConfigError as err:
        raise ClusterError(str(err)) from err
    faults = [f"unknown key {key!r}" for key in config if key not in ("all", "stages")]
    common = config.get("all") or {}
    stages = config.get("stages") or {}
    if not isinstance(common, dict) or not isinstance(stages, dict):
        raise ClusterError(f"{path}: 'all' and 'stages' hold 'key: value' lines")
    faults += [f"all.{fault}" for fault in _faults(common)]
    faults += [
        f"stages.{stage}: only stages {', '.join(map(str, _STAGES))} run as jobs"
        for stage in stages
        if stage not in _STAGES
    ]
    resources = {}
    for stage in _STAGES:
        own = stages.get(stage) or {}
        if not isinstance(own, dict):
            faults.append(f"stages.{stage}: expected 'key: value' lines, found {own!r}")
            continue
        wrong = _faults(own)
        merged = common | own
        wrong += [
            f"{name}: missing, here and in all"
            for name in ("time_min", "cpus", "mem_gb")
            if name not in merged
        ]
        if not wrong and stage != 11 and merged.get("nodes", 1) != 1:
            wrong.append("nodes: only training, stage 11, runs on more than one")
        faults += [f"stages.{stage}.{fault}" for fault in wrong]
        if not faults:
            resources[stage] = Resources(**merged)
    if faults:
        raise ClusterError(f"{path}: {len(faults)} fault(s)\n  " + "\n  ".join(faults))
    return resources


def _faults(section: Mapping) -> list[str]:
    kinds = {f.name: f.type for f in fields(Resources)}
    at_least = {"gpus": 0, "retries": 0}
    faults = []
    for key, value in section.items():
        if key not in kinds:
            faults.append(f"{key}: unknown{nearest(str(key), kinds)}")
        elif kinds[key] in (int, float):
            numbers = (int,) if kinds[key] is int else (int, float)
            low = at_least.get(key, 1)
            is_number = isinstance(value, numbers) and not isinstance(value, bool)
            if not is_number or value < low:
                kind = "a whole number" if kinds[key] is int else "a number"
                faults.append(f"{key}: expected {kind} from {low} up, found {value!r}")
        elif value is not None and not isinstance(value, str):
            faults.append(f"{key}: expected a text, found {value!r}")
    return faults
