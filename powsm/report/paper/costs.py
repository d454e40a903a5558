"""What the trainings of a table's rows take, scaled from those of the papers.

Two figures are known: about 200 H100-hours for POWSM, 168,750 updates of 256 examples,
each padded to 20 s, and 36 hours on 16 GPUs for the model without a decoder.
"""

from dataclasses import dataclass

from powsm.cluster.costs import CORPUS_HOURS, Work, experiment_gb, memory_gb, work_of
from powsm.report.paper.spec import Table
from powsm.report.paper.training import Training


@dataclass(frozen=True)
class Known:
    """A training whose hours its authors give."""

    work: Work
    gpu_hours: float
    source: str


POWSM = Known(
    Work(343.6e6, 168_750, 256 * 20.0, is_stock=True),
    200.0,
    "H100, scaled from the paper's 200",
)
POWSM_CTC = Known(
    Work(425.6e6, 175_000, 256 * 20.0, is_stock=True),
    576.0,
    "80 GB, scaled from PRiSM's 576",
)
GPUS = 4
_SUBSET_HOURS = {"": CORPUS_HOURS, "250h": 250.0, "1kh": 1000.0, "100h": 100.0}


@dataclass(frozen=True)
class TrainingCost:
    """Estimates, none of them measured at this size.

    Attributes:
        parameters: of the model.
        updates: of the run.
        source: whose hours they are scaled from.
        least_gpu_hours, most_gpu_hours: see `Work.relative_to`.
        memory_gb: of each process.
        disk_gb: of the experiment.
        epochs_before: of the training that it goes on from, whose costs are not in it.
    """

    parameters: float
    updates: int
    source: str
    least_gpu_hours: float
    most_gpu_hours: float
    memory_gb: float
    disk_gb: float
    epochs_before: int

    def describe(self) -> str:
        """One line."""
        hours = f"{self.most_gpu_hours:.0f}"
        if self.least_gpu_hours < self.most_gpu_hours:
            hours = f"{self.least_gpu_hours:.0f} to {hours}"
        after = ""
        if self.epochs_before:
            after = f" after {self.epochs_before} epochs that are not in this"
        return (
            f"{self.parameters / 1e6:.0f} M parameters, {self.updates:,} updates"
            f"{after}: {hours} GPU-hours ({self.source}), at most "
            f"{self.most_gpu_hours / GPUS:.0f} h on {GPUS}; {self.memory_gb:.0f} GB of "
            f"memory a process, {self.disk_gb:.0f} GB of disk"
        )


def training_cost(training: Training) -> TrainingCost:
    """Estimate a training from its settings."""
    settings, before = training.settings(), training.epochs_before
    work = work_of(settings, epochs_before=before)
    known = POWSM if "decoder_conf" in settings else POWSM_CTC
    least, most = (known.gpu_hours * part for part in work.relative_to(known.work))
    hours = _SUBSET_HOURS.get(training.subset, CORPUS_HOURS)
    return TrainingCost(
        work.parameters,
        work.updates,
        known.source,
        least,
        most,
        memory_gb(work, hours),
        experiment_gb(settings, work, before),
        before,
    )


def describe_trainings(table: Table) -> str:
    """The trainings of a table's rows: what each costs, and the command for it."""
    rows: dict[Training, list[str]] = {}
    for row in table.rows:
        if row.training is not None:
            rows.setdefault(row.training, []).append(row.name)
    lines = []
    for training, names in rows.items():
        lines.append(f"training of {', '.join(names)}: ")
        lines[-1] += training_cost(training).describe()
        lines += [f"    {line}" for line in training.command().splitlines()]
    return "\n".join(lines)
