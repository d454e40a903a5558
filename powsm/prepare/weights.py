"""How often each utterance comes in training: the file that `utt2weight` names.

A line `<utt_id> <times>`: 0 leaves an utterance out, 2.5 brings it twice in every pass
and in every other one a third time. Those without a line come once.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from powsm.errors import PowsmError
from powsm.files.datadir import read_scp
from powsm.phones.slashed import from_slashed
from powsm.prepare.index import ExampleIndex

log = logging.getLogger(__name__)

MOST_TIMES = 100.0  # of an utterance in a pass; more is a mistake


class WeightError(PowsmError):
    """A file of weights cannot be used; the message names file and line."""


def dump_phones(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(utt_id, phones) of a dump folder, one row an utterance."""
    before = None
    for example_id, target in read_scp(folder / "text.ctc"):
        utt_id = example_id.rpartition("_")[0]
        if utt_id != before:
            yield utt_id, from_slashed(target)
        before = utt_id


def balance_phones(
    phones: Iterable[tuple[str, Sequence[str]]],
    counts: Mapping[str, int],
    temperature: float,
    most: float,
) -> Iterator[tuple[str, float]]:
    """Weights that bring rare phones nearer to common ones.

    A phone that is a share p of all is wanted p^(1/temperature), so 1 leaves all as it
    is. An utterance counts as the mean over its phones of what is wanted of each over
    what there is; over all phones of the set that mean is 1 before it is cut at `most`.

    Args:
        phones: (utt_id, phones) of every utterance.
        counts: how often each phone comes in all of them.
        temperature: 1 or more.
        most: no utterance counts more than this.
    """
    wanted = {phone: n ** (1 / temperature) for phone, n in counts.items()}
    scale = sum(counts.values()) / sum(wanted.values()) if wanted else 1.0
    of_phone = {phone: scale * wanted[phone] / n for phone, n in counts.items()}
    for utt_id, said in phones:
        mean = sum(of_phone[p] for p in said) / len(said) if said else 1.0
        yield utt_id, min(mean, most)


def count_phones(phones: Iterable[tuple[str, Sequence[str]]]) -> Counter[str]:
    """How often each phone comes."""
    counts: Counter[str] = Counter()
    for _, said in phones:
        counts.update(said)
    return counts


def read_weights(path: Path) -> dict[str, float]:
    """The weights of a file, by utt_id.

    Raises:
        WeightError: a line that is none.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightError(f"utt2weight: {path}: no such file; powsm weigh writes one")
    weights: dict[str, float] = {}
    for number, (utt_id, value) in enumerate(read_scp(path), 1):
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not 0 <= weight <= MOST_TIMES:
            raise WeightError(
                f"{path}:{number}: found {value!r}, expected '<utt_id> <times>' with "
                f"a number from 0 to {MOST_TIMES:g}"
            )
        weights[utt_id] = weight
    return weights


def times_of(index: ExampleIndex, path: Path) -> np.ndarray:
    """How often each utterance of a dump folder is wanted in a pass, float64 (n_utts,).

    Raises:
        WeightError: the file is of another set, or leaves nothing.
    """
    weights = read_weights(path)
    times = np.ones(len(index))
    n_found = 0
    for utt, utt_id in enumerate(index.utt_ids()):
        if utt_id in weights:
            times[utt] = weights[utt_id]
            n_found += 1
    if n_found < len(weights):
        if n_found == 0:
            raise WeightError(
                f"{path}: none of its {len(weights):,} utterances is in {index.folder}"
            )
        log.warning(
            "%s: %d of its %d utterances are not in %s",
            *(path, len(weights) - n_found, len(weights), index.folder),
        )
    if not times.any():
        raise WeightError(f"{path}: every utterance of {index.folder} has weight 0")
    return times
