"""What a training takes, from its settings: GPU-hours, time, memory, disk.

A recipe's `costs.yaml` holds what one training took, that of the configuration it
names. Others are scaled from it: by updates, by parameters, and by the audio that the
encoder hears in an update.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from powsm.settings import ConfigError, load_yaml

COST_KEYS = ("time", "disk", "memory", "GPU-hours", "basis")
ABOUT_KEYS = ("config", "hours", "nbpe")  # of stage 11: what its costs are about
CORPUS_HOURS = 17_133.0
STOCK_GB = 52.0  # memory of a process of ESPnet's loop, which holds the corpus's texts
OUR_GB = 8.0  # of our loop, which maps them
N_SPECIAL = 2  # tokens beside the pieces
N_TOKENS = 40_000 + N_SPECIAL
BYTES_AN_HOUR = 750_000  # of hypotheses: 1.5 kB for each of 490 utterances
_FLOAT32 = 4
_BITS_A_SECOND = 100e6  # of sending
_BATCH_SECONDS = 100.0  # of our loop, where the settings do not say


def read_costs(path: Path) -> dict[int, dict[str, str]]:
    """What each stage of a recipe costs: stage -> {"disk": "1.8 TB", ...}.

    Args:
        path: `costs.yaml` of a recipe.

    Raises:
        ConfigError: not YAML, a stage that is no number, or one without all of
            `COST_KEYS`; that of training has `ABOUT_KEYS` as well.
    """
    costs: dict[int, dict[str, str]] = {}
    for stage, row in load_yaml(path).items():
        if not isinstance(stage, int) or not isinstance(row, dict):
            raise ConfigError(
                f"{path}: found {stage!r}, expected the number of a stage with "
                "'key: value' lines"
            )
        if wrong := sorted(
            set(row) ^ {*COST_KEYS, *(ABOUT_KEYS if stage == 11 else ())}
        ):
            raise ConfigError(
                f"{path}: stage {stage}: {' '.join(wrong)} unknown or missing; a stage "
                f"has {' '.join(COST_KEYS)}; 11 also {' '.join(ABOUT_KEYS)}"
            )
        costs[stage] = {key: str(row[key]) for key in (*COST_KEYS, *ABOUT_KEYS)
                        if key in row}  # fmt: skip
    return costs


@dataclass(frozen=True)
class Work:
    """What an update and a run are made of.

    Attributes:
        parameters: of the model.
        updates: of the run; 0 where the length of an epoch is not set.
        seconds: of audio that the encoder hears in an update.
        is_stock: ESPnet's own loop, which encodes every row and pads it.
    """

    parameters: float
    updates: int
    seconds: float
    is_stock: bool

    def relative_to(self, other: "Work") -> tuple[float, float]:
        """Least and most work, in runs of another training.

        Between the two loops the encoder's share changes by the audio and the decoder's
        does not, since both have as many examples; the shares were not measured.
        """
        ratio = self.updates * self.parameters / (other.updates * other.parameters)
        audio = self.seconds / other.seconds
        if self.is_stock == other.is_stock:
            return ratio * audio, ratio * audio
        return ratio * min(1.0, audio), ratio * max(1.0, audio)


def count_parameters(settings: Mapping, n_tokens: int = N_TOKENS) -> float:
    """Weights of an E-Branchformer, with a Transformer decoder or CTC alone.

    Biases and norms are left out. The decoder's embedding, its output and the CTC head
    are as long as the vocabulary; without a decoder, the head, what is fed back from
    the heads between the blocks, and the prompt's embedding.
    """
    encoder = settings["encoder_conf"]
    d = encoder["output_size"]
    gate, kernel = encoder["cgmlp_linear_units"], encoder["merge_conv_kernel"]
    n_ffn = 1 + bool(encoder.get("macaron_ffn")) if encoder.get("use_ffn") else 0
    block = 4 * d * d + 2 * n_ffn * d * encoder["linear_units"]  # attention, FFN
    block += 1.5 * d * gate + gate / 2 * encoder["cgmlp_conv_kernel"]
    block += 2 * d * kernel + 2 * d * d  # merging the two branches
    conv2d = 9 * d * d + 19 * d * d  # of 80 mel bands, 19 are left after it
    total = encoder["num_blocks"] * block + conv2d
    if "decoder_conf" in settings:
        decoder = settings["decoder_conf"]
        own = 8 * d * d + 2 * d * decoder["linear_units"]
        return total + decoder["num_blocks"] * own + 3 * n_tokens * d
    prompt = settings["promptencoder_conf"]
    width = prompt["output_size"]
    own = 4 * width * width + 2 * width * prompt["linear_units"]
    total += prompt["num_blocks"] * own + 2 * width * d
    total += sum(encoder.get("use_cross_attention") or ()) * 4 * d * d
    is_fed_back = bool(encoder.get("interctc_use_conditioning"))
    return total + n_tokens * (d + width + d * is_fed_back)


def is_stock(settings: Mapping, trainer: str = "") -> bool:
    """Whether ESPnet's own loop trains: as asked for, or as the configuration says."""
    if trainer:
        return trainer == "espnet"
    return settings.get("iterator") == "published"


def work_of(
    settings: Mapping,
    trainer: str = "",
    epochs_before: int = 0,
    n_tokens: int = N_TOKENS,
) -> Work:
    """The work of a configuration.

    Args:
        settings: effective ones, without ESPnet's defaults.
        trainer: `powsm` or `espnet`; empty: as the settings say.
        epochs_before: done by the training that it goes on from.
        n_tokens: of the vocabulary.
    """
    stock = is_stock(settings, trainer)
    accumulated = settings.get("accum_grad", 1) if stock else 1
    epochs = settings.get("max_epoch", 0) - epochs_before
    updates = int((settings.get("num_iters_per_epoch") or 0) / accumulated * epochs)
    if stock:
        window = (settings.get("preprocessor_conf") or {}).get("speech_length", 30)
        seconds = settings.get("batch_size", 20) * accumulated * window
    else:
        batches = settings.get("batch_conf") or {}
        seconds = batches.get("update_seconds")
        if seconds is None:
            a_batch = batches.get("batch_seconds", _BATCH_SECONDS)
            a_batch = _BATCH_SECONDS if a_batch == "auto" else a_batch
            seconds = a_batch * batches.get("update_batches", 1)
    return Work(count_parameters(settings, n_tokens), updates, float(seconds), stock)


def experiment_gb(settings: Mapping, work: Work, epochs_before: int = 0) -> float:
    """Models of epochs, averages, and two checkpoints with AdamW's states, float32."""
    kept = settings.get("keep_nbest_models", 10) + 1
    if every := settings.get("nbest_averaging_interval"):
        kept += (settings["max_epoch"] - epochs_before) // every
    elif not work.is_stock:
        kept += 1  # the average at the end
    return _FLOAT32 * work.parameters * (kept + 2 * 3) / 1e9


def memory_gb(work: Work, hours: float) -> float:
    """Memory of a process that trains on `hours` of speech."""
    share = hours / CORPUS_HOURS
    return max(4.0, STOCK_GB * share) if work.is_stock else OUR_GB


def training_row(
    known: Mapping[str, str],
    base: Mapping,
    settings: Mapping,
    *,
    n_gpus: int,
    trainer: str = "",
    hours: float | None = None,
    epochs_before: int = 0,
    n_tokens: int = N_TOKENS,
) -> dict[str, str]:
    """What stage 11 costs with other settings than those that are known.

    Args:
        known: the recipe's row of stage 11: costs with `config` on `hours` of speech.
        base: settings of that configuration.
        settings: those of the run.
        n_gpus: of the run; 0 trains on the CPU.
        trainer: whose loop, where it is asked for.
        hours: of the training set; None: as known.
        epochs_before: done by the training that it goes on from.
        n_tokens: of the vocabulary.

    Returns:
        A row with the keys of `known`.
    """
    was = work_of(base, n_tokens=int(known["nbpe"]) + N_SPECIAL)
    now = work_of(settings, trainer, epochs_before, n_tokens)
    row = dict(known)
    if was.is_stock != now.is_stock or (now.is_stock and hours):
        memory = memory_gb(now, hours or float(known["hours"]))
        row["memory"] = f"{memory:.0f} GB a process"
    if was != now:
        row["disk"] = f"{experiment_gb(settings, now, epochs_before):.2g} GB"
    gpu_hours = float(known["GPU-hours"])
    if bool(gpu_hours) != bool(n_gpus):
        where = "a GPU" if n_gpus else "the CPU"
        return row | _unknown(f"{known['config']} was not measured on {where}")
    if not now.updates:
        return row | _unknown("an epoch is all data: num_iters_per_epoch is not set")
    least, most = now.relative_to(was)
    if gpu_hours:
        spent = (gpu_hours * least, gpu_hours * most)
        row["GPU-hours"] = _span(*spent)
        row["time"] = _time(spent[0] / n_gpus, spent[1] / n_gpus)
    elif was != now:
        row["time"] = _scaled(known["time"], least, most)
    if was != now:
        row["basis"] = (
            f"scaled from {known['config']} by updates ({now.updates:,}), parameters "
            f"({now.parameters / 1e6:.0f} M) and audio; not measured"
        )
    return row


def _unknown(why: str) -> dict[str, str]:
    return {"time": "not known", "GPU-hours": "not known", "basis": why}


def packing_rows(
    rows: Mapping[int, Mapping[str, str]],
    base: Mapping,
    settings: Mapping,
    n_tokens: int,
) -> dict[int, dict[str, str]]:
    """Stages 14 and 15, which write and send two copies of the weights.

    Args:
        rows: the recipe's; those stages may be missing.
        base: settings of the configuration that they are of.
        settings: those of the run.
        n_tokens: of the vocabulary.
    """
    was = count_parameters(base, int(rows[11]["nbpe"]) + N_SPECIAL)
    now = count_parameters(settings, n_tokens)
    found = {n: dict(rows[n]) for n in (14, 15) if n in rows and was != now}
    gb = 2 * _FLOAT32 * now / 1e9
    if 14 in found:
        memory = float(found[14]["memory"].split()[0]) * now / was
        found[14] |= {"disk": f"{gb:.2g} GB", "memory": f"{max(1, memory):.2g} GB"}
    if 15 in found:
        hours = gb * 8e9 / _BITS_A_SECOND / 3600
        found[15] |= {"time": _time(hours, hours)}
        found[15] |= {"basis": f"{gb:.2g} GB at {_BITS_A_SECOND / 1e6:.0f} Mbit/s"}
    return found


def decoding_row(
    known: Mapping[str, str], *, hours: float, rtf: float, n_gpus: int, source: str
) -> dict[str, str]:
    """What stage 12 costs on GPUs for `hours` of speech, tasks and profiles in sum."""
    gpu_hours = hours * rtf
    return {
        **known,
        "disk": f"{max(1.0, hours * BYTES_AN_HOUR / 1e6):.0f} MB",
        "time": _time(gpu_hours / n_gpus, gpu_hours / n_gpus),
        "GPU-hours": _span(gpu_hours, gpu_hours),
        "basis": f"{hours:.1f} h of speech to hear, at a real-time factor of {rtf:.3f} "
        f"({source})",
    }


def _span(least: float, most: float) -> str:
    low, high = (f"{x:.0f}" if x >= 10 else f"{x:.2g}" for x in (least, most))
    return high if low == high else f"{low} to {high}"


def _time(least: float, most: float) -> str:
    """Hours as text, in minutes where they are few.

    >>> _time(0.5, 0.75), _time(2.5, 25)
    ('30 to 45 min', '2.5 to 25 h')
    """
    if most < 1:
        return f"{_span(60 * least, 60 * most)} min"
    return f"{_span(least, most)} h"


def _scaled(text: str, least: float, most: float) -> str:
    """A known time, such as `18 to 32 min`, times a factor.

    >>> _scaled("18 to 32 min", 2, 2), _scaled("40 s", 1, 3)
    ('36 to 64 min', '40 to 120 s')
    """
    numbers = [float(n) for n in re.findall(r"[\d.]+", text)]
    unit = text.rpartition(" ")[2]
    if not numbers:
        return text
    return f"{_span(numbers[0] * least, numbers[-1] * most)} {unit}"
