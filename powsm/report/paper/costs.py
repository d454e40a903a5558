"""What a training takes, from its settings: GPU-hours, time, memory, disk.

The one figure that is known is the paper's: about 200 H100-hours for the standard
model, 168,750 updates of 256 examples, each padded to 20 s. Others are scaled from it:
by updates, by parameters, and by the audio that the encoder hears in an update.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from powsm.report.paper.spec import Table
from powsm.report.paper.training import Training

PAPER_GPU_HOURS = 200.0
PAPER_UPDATES = 168_750
PAPER_PARAMETERS = 343.6e6
PAPER_SECONDS = 256 * 20.0  # of audio encoded in an update
CORPUS_HOURS = 17_133.0
STOCK_GB = 52.0  # memory of a process of ESPnet's loop, which holds all texts
OUR_GB = 8.0  # of our loop, which maps them
GPUS = 4
N_TOKENS = 40_002
_SUBSET_HOURS = {"": CORPUS_HOURS, "250h": 250.0, "1kh": 1000.0, "100h": 100.0}
_FLOAT32 = 4


@dataclass(frozen=True)
class TrainingCost:
    """Estimates, none of them measured at this size.

    Attributes:
        parameters: of the model.
        updates: of the run.
        least_gpu_hours, most_gpu_hours: without padding and with one encoder pass an
            utterance, the encoder's share of the work shrinks by the audio, and the
            decoder's does not; what its share is was not measured.
        memory_gb: of each process.
        disk_gb: of the experiment.
    """

    parameters: float
    updates: int
    least_gpu_hours: float
    most_gpu_hours: float
    memory_gb: float
    disk_gb: float

    def describe(self) -> str:
        """One line."""
        hours = f"{self.most_gpu_hours:.0f}"
        if self.least_gpu_hours < self.most_gpu_hours:
            hours = f"{self.least_gpu_hours:.0f} to {hours}"
        return (
            f"{self.parameters / 1e6:.0f} M parameters, {self.updates:,} updates: "
            f"{hours} GPU-hours (H100, scaled from the paper's 200), at most "
            f"{self.most_gpu_hours / GPUS:.0f} h on {GPUS}; {self.memory_gb:.0f} GB of "
            f"memory a process, {self.disk_gb:.0f} GB of disk"
        )


def count_parameters(settings: Mapping, n_tokens: int = N_TOKENS) -> float:
    """Weights of an E-Branchformer with a Transformer decoder, biases left out.

    The decoder's embedding, its output and the CTC head are as long as the vocabulary.
    """
    encoder, decoder = settings["encoder_conf"], settings["decoder_conf"]
    d = encoder["output_size"]
    gate, kernel = encoder["cgmlp_linear_units"], encoder["merge_conv_kernel"]
    block = 4 * d * d + 4 * d * encoder["linear_units"]  # attention, two FFN
    block += 1.5 * d * gate + gate / 2 * encoder["cgmlp_conv_kernel"]
    block += 2 * d * kernel + 2 * d * d  # merging the two branches
    conv2d = 9 * d * d + 19 * d * d  # of 80 mel bands, 19 are left after it
    decoder_block = 8 * d * d + 2 * d * decoder["linear_units"]
    vocabularies = 3 * n_tokens * d
    return (
        encoder["num_blocks"] * block
        + conv2d
        + decoder["num_blocks"] * decoder_block
        + vocabularies
    )


def training_cost(training: Training) -> TrainingCost:
    """Estimate a training from its settings."""
    settings = training.settings()
    parameters = count_parameters(settings)
    is_stock = settings.get("iterator") == "published"
    per_epoch = settings["num_iters_per_epoch"] / settings.get("accum_grad", 1)
    epochs = settings["max_epoch"] - training.epochs_before
    updates = int(per_epoch * epochs)
    most = PAPER_GPU_HOURS * updates / PAPER_UPDATES * parameters / PAPER_PARAMETERS
    least = most
    if not is_stock:
        batches = settings["batch_conf"]
        seconds = batches["batch_seconds"] * batches["update_batches"]
        least = most * min(1.0, seconds / PAPER_SECONDS)
    kept = settings["keep_nbest_models"] + 1
    kept += epochs // settings.get("nbest_averaging_interval", epochs)
    disk = _FLOAT32 * parameters * (kept + 2 * 3)  # two checkpoints with AdamW's states
    share = _SUBSET_HOURS.get(training.subset, CORPUS_HOURS) / CORPUS_HOURS
    memory = max(4.0, STOCK_GB * share) if is_stock else OUR_GB
    return TrainingCost(parameters, updates, least, most, memory, disk / 1e9)


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
