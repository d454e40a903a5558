"""Choose where a model's phones begin between the frames that say them, by labels.

    powsm calibrate --model exp/x labelled/
    powsm calibrate --model exp/x --tier phonemes -- labelled/*.wav

Beside each recording lies a NAME.TextGrid or NAME.eaf whose tier has the phones in IPA,
with the times that people set, or labels of TIMIT (.PHN) or Buckeye (.phones). How long
before or after its frames a model's phones begin is a property of the model; a hundred
labelled boundaries show it. It is chosen on half of the recordings and measured on the
other, and the other way round, then on all, and stored as boundaries.json beside the
model's configuration: `powsm align`, `transcribe` and `align-set` read it, `powsm pack`
packs it. Where it is no better than the usual values, those are stored. Labels sil, sp
and spn are silences.
"""

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.audio_files import printable
from powsm.cli.options import refuse_unused
from powsm.cli.recordings.paths import (
    add_model,
    is_quiet,
    load_model,
    model_of,
    sources_of,
)
from powsm.errors import PowsmError

if TYPE_CHECKING:
    import numpy as np

    from powsm.corpora.labelled import Piece
    from powsm.decode.recordings.model import Model
    from powsm.decode.timing.blanks import Timing
    from powsm.decode.timing.calibrate import Labelled

log = logging.getLogger(__name__)

_FEWEST, _MOST = 100, 4000  # boundaries that are looked at
_TOUCH_S = 0.001  # between two labels that share a boundary


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="recording, or folder")
    add_model(parser)
    tiers = "with the phones; the first that is there (default: phones phone)"
    add("--tier", nargs="+", default=["phones", "phone"], metavar="NAME", help=tiers)


def run(options: argparse.Namespace) -> None:
    if not Path(name := model_of(options)).is_dir():
        raise PowsmError(
            f"--model {name}: no folder, and what is found is stored there; name an "
            "experiment or a packed folder"
        )
    paths = [source.path for source in sources_of(options.paths)]
    from powsm.corpora.labelled import has_tiers

    why = "there is no TextGrid or EAF"
    refuse_unused(options, "tier", why=why, unless=any(map(has_tiers, paths)))
    labels = _labels(paths, options.tier)
    model = load_model(options)
    recordings = _labelled(model, labels)
    n_boundaries = sum(one.n_boundaries for one in recordings)
    if n_boundaries < _FEWEST:
        raise PowsmError(
            f"{n_boundaries} boundaries in {len(recordings)} recordings, expected "
            f"{_FEWEST} or more; label more phones"
        )
    log.info(
        "%d recordings with %d boundaries; %d of %d phones have no token, and their "
        "nearest stood for them",
        *(len(recordings), n_boundaries, sum(one.n_lacking for one in recordings)),
        sum(len(one.places) for one in recordings),
    )
    if len(recordings) == 1:
        recordings = recordings[0].halves()
    timing, before, after = _chosen(model, recordings)
    _store(model, timing, before, after, options.paths, n_boundaries)


def _labels(paths: Sequence[Path], tiers: Sequence[str]) -> "list[tuple[Path, Piece]]":
    """Recordings with their labels, spread over all of them if there are too many."""
    from powsm.corpora.labelled import LABEL_ENDINGS, labels_beside, read_pieces

    files: dict[Path, Path] = {}  # one recording each, which may be there twice
    without = []
    for path in paths:
        if not path.exists():
            raise PowsmError(f"{printable(path)}: no such recording or folder")
        if (file := labels_beside(path)) is None:
            without.append(f"{printable(path)}: no {' or '.join(LABEL_ENDINGS)} of it")
        else:
            files[file] = path
    labels: list[tuple[Path, Piece]] = []
    for file, path in files.items():
        try:
            pieces = [piece for piece in read_pieces(file, tiers) if piece.labels]
        except PowsmError as err:
            without.append(str(err))
            continue
        labels += [(path, piece) for piece in pieces]
        if not pieces:
            without.append(f"{printable(file)}: nothing is labelled")
    if not labels:
        raise PowsmError(without[0])
    if without:
        log.warning(
            "%d recordings without labels, such as %s", len(without), without[0]
        )
    every = math.ceil(sum(len(piece.labels) for _, piece in labels) / _MOST)
    if every > 1:
        log.info("%d phones are enough: one recording in %d is read", _MOST, every)
    return labels[::every]


def _labelled(
    model: "Model", labels: "Sequence[tuple[Path, Piece]]"
) -> "list[Labelled]":
    """Recordings with the frames of their phones; others are logged by their kind."""
    from tqdm import tqdm

    from powsm.decode.align import AlignError

    recordings: list[Labelled] = []
    faults: dict[str, list[str]] = {}
    bar = {"desc": "align", "unit": "file", "disable": is_quiet()}
    for path, piece in tqdm(labels, **bar):
        try:
            recordings.append(_found(model, path, piece))
        except PowsmError as err:
            kind = "cannot be aligned" if isinstance(err, AlignError) else "are no good"
            faults.setdefault(kind, []).append(f"{printable(path)}: {err}")
    for kind, messages in faults.items():
        log.warning("%d recordings %s, such as %s", len(messages), kind, messages[0])
    return recordings


def _found(model: "Model", path: Path, piece: "Piece") -> "Labelled":
    from powsm.decode.align import forced_frames
    from powsm.decode.recordings.samples import speech_of
    from powsm.decode.recordings.stretches import between
    from powsm.decode.timing.calibrate import Labelled

    phones_of = [model.ipa(stretch.label) for stretch in piece.labels]
    speech = speech_of(path, channel="mix", name="-", min_samples=model.min_samples)
    speech = between(speech, piece.begin_s, piece.end_s)
    speech = speech[0 : len(speech)]  # which every timing that is tried looks at
    phones = [phone for phones in phones_of for phone in phones]
    places, n_frames, n_lacking = forced_frames(model.recogniser, speech, phones)
    begins: dict[int, float] = {}
    ends: dict[int, float] = {}
    at = 0
    following = [*(stretch.start_s for stretch in piece.labels[1:]), math.inf]
    for phones, stretch, next_s in zip(phones_of, piece.labels, following, strict=True):
        begins[at] = stretch.start_s - piece.begin_s
        at += len(phones)
        if next_s - stretch.end_s > _TOUCH_S:
            ends[at - 1] = stretch.end_s - piece.begin_s
    return Labelled(places, n_frames, speech, begins, ends, n_lacking)


def _chosen(
    model: "Model", recordings: "Sequence[Labelled]"
) -> "tuple[Timing, np.ndarray, np.ndarray]":
    """The timing, and errors in ms by the usual one and by what other halves chose."""
    import numpy as np
    from tqdm import tqdm

    from powsm.decode.timing.blanks import USUAL
    from powsm.decode.timing.calibrate import calibrate, cost, errors_ms
    from powsm.model.frames import FrameGrid

    grid = FrameGrid.of(model.recogniser.model)
    before, after = [], []
    with tqdm(desc="choose", unit="timing", disable=is_quiet()) as bar:
        for half in (0, 1):
            other = recordings[1 - half :: 2]
            timing = calibrate(recordings[half::2], grid, lambda _: bar.update())
            before.append(errors_ms(other, grid, USUAL))
            after.append(errors_ms(other, grid, timing))
        usual, found = np.concatenate(before), np.concatenate(after)
        if cost(found) >= cost(usual):
            log.info(
                "the usual times are as good, measured on halves that did not choose"
            )
            return USUAL, usual, usual
        return calibrate(recordings, grid, lambda _: bar.update()), usual, found


def _store(
    model: "Model",
    timing: "Timing",
    before: "np.ndarray",
    after: "np.ndarray",
    paths: Sequence[str],
    n_boundaries: int,
) -> None:
    from powsm.decode.timing.calibrate import summary
    from powsm.decode.timing.stored import read_record, write_timing

    told = {"usual": summary(before), "calibrated": summary(after)}
    for name, row in told.items():
        log.info("%s times: %s", name, ", ".join(f"{k} {v}" for k, v in row.items()))
    about = {
        "labels": [Path(path).resolve().name for path in paths],
        "boundaries": n_boundaries,
        "on_other_halves": told,
    }
    config_file, weights = model.files.config_file, model.recogniser.weights
    earlier = read_record(config_file)
    if earlier is not None and weights not in earlier["weights"]:
        log.warning("what was stored for other weights is replaced")
    path = write_timing(config_file, timing, [weights], about)
    log.info("%s: %s", path, ", ".join(f"{k} {v:g}" for k, v in asdict(timing).items()))
