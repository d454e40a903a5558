"""Feature mean and variance from a sample of the corpus (stage 10).

ESPnet passes over all audio to collect shapes and statistics. Shapes are known from
`utt2num_samples`, and the mean of 80 mel bins settles within minutes of speech, so a
stated, seeded sample of some hours is enough.
"""

import argparse
import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from espnet2.tasks.s2t import frontend_choices
from tqdm import tqdm

from powsm.audio import SAMPLE_RATE
from powsm.files.lock import owned
from powsm.files.whole import atomic_write, sweep_files
from powsm.prepare.index import ExampleIndex
from powsm.settings import ConfigError

_ARRAYS = ("count", "sum", "sum_square")
log = logging.getLogger(__name__)

_FOLDERS = {"own": "train", "published": "train_padded"}  # by `stats_window`


def stats_file(folder: Path, stats_window: str) -> Path:
    """Where stage 10 keeps statistics; those of both kinds lie side by side."""
    return folder / _FOLDERS[stats_window] / "feats_stats.npz"


def find_stats(place: Path | None, settings: Mapping) -> Path | None:
    """The statistics that a training takes, of the clips that its settings say.

    Args:
        place: stage 10's folder, or a file.
        settings: of the training YAML, with `stats_window` and `normalize`.

    Returns:
        The file; None where features are not normalised by statistics.

    Raises:
        ConfigError: there is none, or it is of clips of the other kind, or of other
            features. A file that does not say of which, as ESPnet's own, is taken.
    """
    if settings.get("normalize") != "global_mvn":
        return None
    wanted = settings.get("stats_window", "own")
    path = stats_file(place, wanted) if place and place.is_dir() else place
    if path is None or not path.exists():
        raise ConfigError(
            f"no statistics of features at {path}: run stage 10 with the same --config "
            f"(stats_window: {wanted})"
        )
    try:
        with np.load(path) as arrays:
            there = str(arrays["window"]) if "window" in arrays else wanted
            sizes = [np.asarray(arrays[name]).size for name in _ARRAYS]
            made_by = json.loads(str(arrays["made_by"])) if "made_by" in arrays else {}
    except (ValueError, KeyError, EOFError, TypeError, BadZipFile) as err:
        fault = " ".join(str(err).split())
        raise ConfigError(
            f"{path}: damaged, or no statistics of features ({fault}); remove it and "
            "run stage 10 again"
        ) from err
    if sizes[0] != 1 or sizes[1] != sizes[2]:
        raise ConfigError(f"{path}: sizes {sizes} do not fit; run stage 10 again")
    if there != wanted:
        raise ConfigError(
            f"{path}: statistics with stats_window {there}, but the settings say "
            f"{wanted}; models of the two do not mix: take --stats_window {there}, or "
            "run stage 10 with this --config"
        )
    for key, now in json.loads(_made_by(settings)).items():
        if made_by.get(key, now) != now:
            raise ConfigError(
                f"{path}: statistics with {key} {made_by[key]}, but the settings say "
                f"{now}: run stage 10 with this --config and --set"
            )
    return path


def _made_by(settings: Mapping) -> str:
    """Settings that statistics follow from, the defaults of features included: JSON."""
    conf = settings.get("frontend_conf") or {}
    kind = settings.get("frontend") or "default"
    taken = inspect.signature(frontend_choices.get_class(kind)).bind_partial(**conf)
    taken.apply_defaults()
    values = {f"frontend_conf.{key}": value for key, value in taken.arguments.items()}
    values.pop("frontend_conf.fs", None)  # 16000 or 16k
    if settings.get("stats_window") == "published":
        preprocessor_conf = settings.get("preprocessor_conf") or {}
        seconds = preprocessor_conf.get("speech_length")
        values["preprocessor_conf.speech_length"] = seconds
    return json.dumps({"frontend": kind} | values, default=str)


def sample_by_language(index: ExampleIndex, hours: float, seed: int) -> np.ndarray:
    """Utterances of about `hours` in all, every language by its share of the audio.

    Returns:
        Utterance numbers, sorted. Each language gives at least one.
    """
    langs = index.langs()
    seconds = np.asarray(index.n_samples) / SAMPLE_RATE
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

    The file also says of which clips it is, as `window`, and `made_by` which settings.

    Args:
        args: settings with `frontend`, `frontend_conf`, `stats_window` and, where that
            is `published`, `speech_length` in `preprocessor_conf`.
        folder: the training set's dump folder.
        out: the file to write.
        hours: how much audio to sample; all of it when the set has less.
        seed: of the sample.

    Returns:
        The three arrays; sums have shape (n_mels,).

    Raises:
        ConfigError: no `speech_length` to pad to.
        OwnedError: another process is writing the file.
        AudioError: audio that cannot be used; names the utterance.
    """
    frontend = frontend_choices.get_class(args.frontend)(**args.frontend_conf)
    n_window = _window_samples(args)
    index = ExampleIndex(folder)
    utts = sample_by_language(index, hours, seed)
    with owned(out):
        sweep_files(out.parent, below=False, of=[out.name])
        stats = _sums(frontend, index, utts, n_window)
        with atomic_write(out, "wb") as file:
            np.savez(
                file,
                window=np.array(args.stats_window),
                made_by=np.array(_made_by(vars(args))),
                **stats,
            )
    log.info(
        "%d of %d utterances, %.2f h%s, %d frames -> %s",
        utts.size,
        len(index),
        stats["count"] * 0.01 / 3600,
        f" padded to {n_window / SAMPLE_RATE:g} s each" if n_window else "",
        stats["count"],
        out,
    )
    return stats


def _window_samples(args: argparse.Namespace) -> int:
    """Samples to which every clip is padded or cut; 0 leaves them as they are."""
    if args.stats_window == "own":
        return 0
    seconds = (args.preprocessor_conf or {}).get("speech_length")
    if not seconds:
        raise ConfigError(
            f"stats_window: {args.stats_window} pads clips to preprocessor_conf."
            "speech_length, which is not set: set it, or take stats_window: own"
        )
    return round(seconds * SAMPLE_RATE)


def _sums(
    frontend: torch.nn.Module, index: ExampleIndex, utts: np.ndarray, n_window: int
) -> dict[str, np.ndarray]:
    total = squares = 0.0
    count = 0
    for utt in tqdm(utts, desc="statistics", unit="utt", disable=None):
        speech = torch.from_numpy(index.speech(int(utt)))
        if n_window:  # a negative number cuts
            pad = n_window - speech.numel()
            speech = torch.nn.functional.pad(speech, (0, pad))
        with torch.no_grad():
            feats, lens = frontend(speech[None], torch.tensor([speech.numel()]))
        feats = feats[0, : int(lens[0])].double()
        total = total + feats.sum(0).numpy()
        squares = squares + feats.square().sum(0).numpy()
        count += feats.size(0)
    return {"count": np.array(count), "sum": total, "sum_square": squares}
