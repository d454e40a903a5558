#!/usr/bin/env python3
"""Boundary error of forced alignment against boundaries that people set.

Reads a folder of recordings with a file of labels beside each: a TextGrid or EAF of the
same name, as VoxAngeles is when its archives are unpacked (`for z in *.zip; do unzip -q
"$z"; done`), TIMIT's .PHN, or Buckeye's .phones, whose utterances are aligned one by
one. Aligns the phones, and compares where they begin; a stop of TIMIT begins with its
closure. Prints one JSON line:

  all, inner, first     beginnings of phones: each, after another phone, after silence
    median_ms, mean_ms, p90_ms   distance from the beginning that a person set
    within_10ms, within_20ms, within_40ms   share of beginnings, in percent
    bias_ms             median of the signed error; above 0: found too late
  r_value               of all at 20 ms; 1 is all found (Rasanen et al., 2009)
  recordings, aligned, left_out   how many pieces, and why others were not

MFA's authors state a mean of 15 ms on other data.
"""

import argparse
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

import powsm
from powsm.corpora.labelled import LABEL_ENDINGS, Piece, labels_beside, read_pieces
from powsm.decode.align import AlignError
from powsm.decode.recordings.model import Model
from powsm.decode.recordings.samples import speech_of
from powsm.decode.recordings.stretches import between
from powsm.decode.timing.calibrate import summary
from powsm.errors import PowsmError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="recordings and their labels")
    parser.add_argument("--model", required=True, help="experiment, archive or Hub tag")
    names = "of phones in the labels: the first that is there"
    parser.add_argument("--tier", nargs="+", default=["phones", "phone"], help=names)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    model = powsm.load(args.model, device=args.device)
    n_pieces = 0
    errors_ms: list[float] = []
    is_inner: list[bool] = []
    left_out: Counter[str] = Counter()
    for audio, labels in tqdm(find_pairs(args.folder), disable=None):
        try:
            pieces = read_pieces(labels, args.tier)
        except PowsmError:
            left_out["labels"] += 1
            n_pieces += 1
            continue
        n_pieces += len(pieces)
        for piece in pieces:
            try:
                found, true, inner = beginnings(model, audio, piece)
            except AlignError as err:
                is_token = "no token" in str(err)
                left_out["phone_without_token" if is_token else "align"] += 1
            except PowsmError:
                left_out["no_ipa"] += 1
            else:
                errors_ms += [1000 * (f - t) for f, t in zip(found, true, strict=True)]
                is_inner += inner
    error, inner = np.array(errors_ms), np.array(is_inner, bool)
    result = {
        "bench": "align_human",
        "model": str(args.model),
        "recordings": n_pieces,
        "aligned": n_pieces - left_out.total(),
        "left_out": dict(left_out),
        "all": summary(error),
        "inner": summary(error[inner]),
        "first": summary(error[~inner]),
        "r_value": round(r_value(float(np.mean(np.abs(error) <= 20))), 3),
    }
    print(json.dumps(result))


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Recordings and their labels, in order; files that begin with a dot are none."""
    recordings = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".wav", ".flac") and not path.name.startswith(".")
    ]
    # one recording each, which may be there in two forms
    of = {labels_beside(audio): audio for audio in recordings}
    pairs = [(audio, labels) for labels, audio in of.items() if labels is not None]
    if not pairs:
        raise SystemExit(
            f"{folder}: no recording with a {' or '.join(LABEL_ENDINGS)} of its name"
        )
    return pairs


def beginnings(
    model: Model, audio: Path, piece: Piece
) -> tuple[list[float], list[float], list[bool]]:
    """Where phones begin, found and true, in seconds, and which follow another phone.

    A label that is two phones to the model, such as a diphthong, gives the first one.
    """
    stretches = piece.labels
    phones_of = [model.ipa(stretch.label) for stretch in stretches]
    said = [p for phones in phones_of for p in phones]
    segments = model.align_phones(speech_of_piece(model, audio, piece), said)
    found, at = [], 0
    for phones in phones_of:
        found.append(piece.begin_s + segments[at].start)
        at += len(phones)
    ends = [None, *(stretch.end_s for stretch in stretches)]
    true = [stretch.start_s for stretch in stretches]
    inner = [
        end is not None and abs(start - end) < 1e-3
        for start, end in zip(true, ends, strict=False)
    ]
    return found, true, inner


def speech_of_piece(model: Model, audio: Path, piece: Piece):
    """What a model hears of a labelled piece of a recording."""
    speech = speech_of(audio, min_samples=model.min_samples)
    return between(speech, piece.begin_s, piece.end_s)


def r_value(hit_rate: float, over_segmentation: float = 0.0) -> float:
    """How near to all boundaries found and none invented, 1 at best.

    Args:
        hit_rate: share of true boundaries that were found, 0 to 1.
        over_segmentation: boundaries found over true ones, less 1; 0 where each phone
            has one, as in alignment.
    """
    to_best = np.hypot(1 - hit_rate, over_segmentation)
    to_line = (hit_rate - 1 - over_segmentation) / np.sqrt(2)
    return float(1 - (abs(to_best) + abs(to_line)) / 2)


if __name__ == "__main__":
    main()
