"""Feature mean and variance from a sample of the corpus (stage 10).

ESPnet passes over all audio to collect shapes and statistics. Shapes are known from
`utt2num_samples`, and the mean of 80 mel bins settles within minutes of speech, so a
stated, seeded sample of some hours is enough.
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from espnet2.tasks.s2t import frontend_choices
from tqdm import tqdm

from powsm.audio import SAMPLE_RATE
from powsm.files.lock import owned
from powsm.files.whole import atomic_write
from powsm.prepare.index import ExampleIndex

log = logging.getLogger(__name__)


def sample_by_language(index: ExampleIndex, hours: float, seed: int) -> np.ndarray:
    """Utterances of about `hours` in all, every language by its share of the audio.

    Returns:
        Utterance numbers, sorted. Each language gives at least one.
    """
    langs = index.langs()
    seconds = np.asarray(index.num_samples) / SAMPLE_RATE
    share = min(1.0, hours * 3600 / seconds.sum())
    rng = np.random.default_rng(seed)
    chosen = []
    for lang in np.unique(langs):
        utts = rng.permutation(np.flatnonzero(langs == lang))
        wanted = share * seconds[utts].sum()
        n = int(np.searchsorted(seconds[utts].cumsum(), wanted * (1 - 1e-9))) + 1
        chosen.append(utts[:n])
    return np.sort(np.concatenate(chosen))


def collect(
    args: argparse.Namespace, folder: Path, out: Path, *, hours: float, seed: int
) -> Mapping[str, np.ndarray]:
    """Write ESPnet's `feats_stats.npz` (count, sum, sum_square) for `GlobalMVN`.

    Args:
        args: settings with `frontend` and `frontend_conf`.
        folder: the training set's dump folder.
        out: the file to write.
        hours: how much audio to sample; all of it when the set has less.
        seed: of the sample.

    Returns:
        The three arrays; sums have shape (n_mels,).

    Raises:
        OwnedError: another process is writing the file.
        AudioError: audio that cannot be used; names the utterance.
    """
    frontend = frontend_choices.get_class(args.frontend)(**args.frontend_conf)
    index = ExampleIndex(folder)
    utts = sample_by_language(index, hours, seed)
    with owned(out):
        stats = _sums(frontend, index, utts)
        with atomic_write(out, "wb") as file:
            np.savez(file, **stats)
    log.info(
        "%d of %d utterances, %.2f h, %d frames -> %s",
        utts.size,
        len(index),
        stats["count"] * 0.01 / 3600,
        stats["count"],
        out,
    )
    return stats


def _sums(
    frontend: torch.nn.Module, index: ExampleIndex, utts: np.ndarray
) -> dict[str, np.ndarray]:
    total = squares = 0.0
    count = 0
    for utt in tqdm(utts, desc="statistics", unit="utt", disable=None):
        speech = torch.from_numpy(index.speech(int(utt)))
        with torch.no_grad():
            feats, lens = frontend(speech[None], torch.tensor([speech.numel()]))
        feats = feats[0, : int(lens[0])].double()
        total = total + feats.sum(0).numpy()
        squares = squares + feats.square().sum(0).numpy()
        count += feats.size(0)
    return {"count": np.array(count), "sum": total, "sum_square": squares}
