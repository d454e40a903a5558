#!/usr/bin/env python3
"""How well scores of pronunciation agree with people, or find phones not said.

    python scripts/bench/pronunciation.py people SPEECHOCEAN762 --model exp/x
    python scripts/bench/pronunciation.py replaced dump/raw/test_x --model exp/x
    python scripts/bench/pronunciation.py replaced VOXANGELES_UNPACKED --model exp/x

`people`: SpeechOcean762 (openslr.org/101, with resource/scores.json) is aligned with
its canonical phones. Pearson correlation of each score with the experts', on the test
part: of phones (0 to 2) as it is and after a parabola fitted to each phone on the
training part, and of utterances (accuracy, 0 to 10) with the mean of their phones,
likewise. A scores.json of some utterances will do; it is said how many of each part.

`replaced`: of the phones of a set (a dump folder, or recordings with a TextGrid or EAF
beside each), 10 % are replaced by one of the five most similar that the model has. The
area under the ROC curve by which a score tells these from the others: 0.5 is chance.
Beside it the share of replaced phones whose rival is the phone that was said.

One JSON line. In brackets 95 % bootstrap intervals, over speakers or over utterances;
`_less_log_confidence` is the paired difference from the first score. The scores are
`log_confidence`, `gop` and `gop_free`, see
powsm/decode/pronunciation/goodness.py.
"""

import argparse
import json
import logging
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from align_human import find_pairs, speech_of_piece
from tqdm import tqdm

import powsm
from powsm.corpora.evaluation.kaldi_folder import CorpusError, parse_json
from powsm.corpora.labelled import Piece, read_pieces
from powsm.decode.align_files import Segment
from powsm.decode.batch import items
from powsm.decode.recordings.model import Model
from powsm.decode.recordings.samples import read_speech
from powsm.errors import PowsmError
from powsm.files.text import read_text
from powsm.files.transcripts import read_transcripts
from powsm.phones.alphabets import read_alphabet, unstressed
from powsm.phones.inventory import feature_table
from powsm.phones.normaliser import strip_suprasegmentals
from powsm.vocabulary.phone_sets import phones_of_tokens

SCORES = ("log_confidence", "gop", "gop_free")
COLUMNS = (*SCORES, *(f"{name}_less_{SCORES[0]}" for name in SCORES[1:]))
KALDI = 0.42  # correlation of phones, as published for Kaldi's recipe of the corpus
RATE, N_SIMILAR = 0.1, 5  # share of phones replaced, and by how many similar ones
N_RESAMPLES = 1000
_LEAST = 20  # examples that a parabola is fitted to


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("people", "replaced"))
    parser.add_argument("folder", type=Path, help="corpus, dump folder or recordings")
    parser.add_argument("--model", required=True, help="experiment, archive or Hub tag")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--most", type=int, help="utterances at most (of each part)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    try:
        measure = measure_people if args.what == "people" else measure_replaced
        load = partial(powsm.load, args.model, args.device)
        result = measure(args.folder, args.most, load)
    except PowsmError as err:
        raise SystemExit(f"pronunciation.py: error: {err}") from err
    print(json.dumps({"bench": args.what, "model": args.model, **result}))


def scores_of(segments: list[Segment]) -> list[float]:
    """Mean of each of `SCORES` over the segments of a label."""
    rows = [(math.log(max(s.confidence, 1e-4)), s.gop, s.gop_free) for s in segments]
    return np.mean(rows, axis=0).tolist()


def beside_first(values: np.ndarray) -> np.ndarray:
    """What `COLUMNS` name: the values of `SCORES`, and how far from the first's."""
    return np.concatenate([values, values[1:] - values[0]])


def resampled(
    units: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(resamples, ...) a statistic of rows drawn by their units, with replacement."""
    draw = np.random.default_rng(0)
    _, counts = np.unique(units, return_counts=True)
    rows_of = np.split(np.argsort(units, kind="stable"), counts.cumsum()[:-1])
    drawn = draw.integers(len(rows_of), size=(N_RESAMPLES, len(rows_of)))
    return np.array([statistic(np.concatenate([rows_of[n] for n in d])) for d in drawn])


def with_interval(
    units: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> list[list[float]]:
    """[value, low, high] of each value of a statistic of row numbers."""
    value = statistic(np.arange(len(units)))
    low, high = np.nanquantile(resampled(units, statistic), [0.025, 0.975], axis=0)
    return np.round(np.stack([value, low, high], axis=-1), 3).tolist()


# ---------------------------------------------------------------- agreeing with people


@dataclass(frozen=True)
class Judged:
    """A canonical phone with the scores of a model and of people."""

    part: str
    utt_id: str
    speaker: str
    label: str
    scores: list[float]
    human: float


def measure_people(folder: Path, most: int | None, load: Callable[[], Model]) -> dict:
    human, parts = read_speechocean(folder)
    audio = {path.stem: path for path in folder.rglob("WAVE/*/*.WAV")}
    model = load()
    judged: list[Judged] = []
    left_out: Counter[str] = Counter()
    for part, speakers in parts.items():
        scored = sorted(speakers.keys() & human.keys())
        print(
            f"{part}: scores.json has {len(scored):,} of {len(speakers):,} utterances",
            file=sys.stderr,
        )
        for utt_id in tqdm(scored[:most], desc=part, disable=None):
            if utt_id not in audio:
                left_out["no_audio"] += 1
                continue
            try:
                judged += judge(model, part, utt_id, speakers, human, audio)
            except PowsmError as err:
                left_out[type(err).__name__] += 1
    fitted = fit(judged)
    is_test = np.array([one.part == "test" for one in judged])
    test = [one for one in judged if one.part == "test"]
    accuracy = {utt_id: float(human[utt_id]["accuracy"]) for utt_id in human}
    return {
        "utterances": {
            part: [len({one.utt_id for one in judged if one.part == part}), len(ids)]
            for part, ids in parts.items()
        },
        "left_out": dict(left_out),
        "speakers": len({one.speaker for one in test}),
        "phones": len(test),
        "published_kaldi": KALDI,
        **correlations(test, fitted[is_test], accuracy),
    }


def read_speechocean(folder: Path) -> tuple[dict, dict[str, dict[str, str]]]:
    """What people said of each utterance, and the speakers of utterances by part."""
    found = sorted(folder.rglob("scores.json"))
    if not found:
        raise CorpusError(
            f"{folder}: no resource/scores.json, which has what the experts said; "
            "get it from openslr.org/101"
        )
    parts = {}
    for part in ("train", "test"):
        lists = sorted(folder.rglob(f"{part}/utt2spk"))
        if not lists:
            raise CorpusError(f"{folder}: no {part}/utt2spk; get it anew")
        parts[part] = dict(line.split() for line in read_text(lists[0]).splitlines())
    return parse_json(read_text(found[0]), found[0]), parts


def judge(
    model: Model, part: str, utt_id: str, speakers: dict, human: dict, audio: dict
) -> Iterator[Judged]:
    """The phones of an utterance; [aʊ] is one to people and two to the model."""
    table = read_alphabet("arpabet")
    labels, given = [], []
    for word in human[utt_id]["words"]:
        phones = word["phones"]
        phones = phones.split() if isinstance(phones, str) else phones
        labels += [unstressed(phone) for phone in phones]
        given += word["phones-accuracy"]
    phones_of = [model.ipa(table[label]) for label in labels]
    everything = [phone for phones in phones_of for phone in phones]
    segments = model.align(audio[utt_id], everything, gop=True, nearest=True)
    at = 0
    for label, phones, score in zip(labels, phones_of, given, strict=True):
        own = segments[at : at + len(phones)]
        at += len(phones)
        yield Judged(
            part, utt_id, speakers[utt_id], label, scores_of(own), float(score)
        )


def fit(judged: list[Judged]) -> np.ndarray:
    """(N, scores) what people should say, by a parabola of each phone of `train`."""
    values = np.array([one.scores for one in judged])
    human = np.array([one.human for one in judged])
    labels = np.array([one.label for one in judged])
    is_train = np.array([one.part == "train" for one in judged])
    if not is_train.any() or is_train.all():
        raise PowsmError("one of the parts train and test has no utterance to judge")
    fitted = np.empty_like(values)
    for label in np.unique(labels):
        own = labels == label
        seen = own & is_train
        if seen.sum() < _LEAST:
            seen = is_train
        for column in range(values.shape[1]):
            x = values[seen, column]
            curve = np.polynomial.Polynomial.fit(x, human[seen], deg=2)
            low, high = np.quantile(x, [0.01, 0.99])  # beyond it a parabola turns
            fitted[own, column] = curve(values[own, column].clip(low, high)).clip(0, 2)
    return fitted


def correlations(
    test: list[Judged], fitted: np.ndarray, accuracy: dict[str, float]
) -> dict:
    values = np.array([one.scores for one in test])
    human = np.array([one.human for one in test])
    speakers = np.array([one.speaker for one in test])
    rows_of = defaultdict(list)
    for row, one in enumerate(test):
        rows_of[one.utt_id].append(row)
    utt_speakers = np.array([speakers[rows[0]] for rows in rows_of.values()])
    utt_human = np.array([accuracy[utt_id] for utt_id in rows_of])
    result = {}
    for name, columns in (("", values), ("_fitted", fitted)):
        means = np.array([columns[rows].mean(0) for rows in rows_of.values()])
        for what, units, x, y in (
            ("phones", speakers, columns, human),
            ("utterances", utt_speakers, means, utt_human),
        ):
            found = with_interval(
                units, lambda rows, x=x, y=y: beside_first(pearson(x[rows], y[rows]))
            )
            result[f"of_{what}{name}"] = dict(zip(COLUMNS, found, strict=True))
    return result


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation of each column of x (N, C) with y (N,); NaN where nothing varies."""
    x, y = x - x.mean(0), y - y.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y[:, None]).sum(0) / np.sqrt((x**2).sum(0) * (y**2).sum())


# ------------------------------------------------------------- finding replaced phones


def measure_replaced(folder: Path, most: int | None, load: Callable[[], Model]) -> dict:
    model = load()
    similar = similar_phones(model)
    draw = np.random.default_rng(0)
    rows, units, is_replaced, is_true = [], [], [], []
    left_out: Counter[str] = Counter()
    utterances = list(phones_of_set(model, folder))[:most]
    for number, (audio, phones) in enumerate(tqdm(utterances, disable=None)):
        bare = [strip_suprasegmentals((phone,)) for phone in phones]
        phones = [phone for group in bare for phone in group]
        if not phones or not similar.keys() >= set(phones):
            left_out["phone_without_token"] += 1
            continue
        changed = draw.random(len(phones)) < RATE
        given = [
            str(draw.choice(similar[p])) if c else p
            for p, c in zip(phones, changed, strict=True)
        ]
        try:
            found = model.align_phones(audio(), given, gop=True)
        except PowsmError as err:
            left_out[type(err).__name__] += 1
            continue
        rows += [scores_of([segment]) for segment in found]
        units += [number] * len(found)
        is_replaced += changed.tolist()
        is_true += [s.rival == p for s, p in zip(found, phones, strict=True)]
    values, replaced = np.array(rows), np.array(is_replaced, bool)
    if not replaced.any() or replaced.all():
        raise PowsmError(f"{folder}: too few phones to replace any")
    units = np.array(units)

    def areas(chosen: np.ndarray) -> np.ndarray:
        found = [auc(v[chosen], replaced[chosen]) for v in values.T]
        return beside_first(np.array(found))

    return {
        "utterances": len(np.unique(units)),
        "left_out": dict(left_out),
        "phones": len(replaced),
        "replaced": int(replaced.sum()),
        "auc": dict(zip(COLUMNS, with_interval(units, areas), strict=True)),
        "rival_is_true": round(float(np.array(is_true)[replaced].mean()), 3),
    }


def phones_of_set(model: Model, folder: Path) -> Iterator[tuple[Callable, list[str]]]:
    """(reads the audio, phones) of each utterance of a dump folder or of labels."""
    if (folder / "wav.scp").is_file():
        said = read_transcripts(folder / "ref.ipa")
        for item in items(folder, "pr"):
            phones = list(model.ipa(said[item.utt_id]))
            yield (lambda i=item: read_speech(i.audio, model.min_samples)), phones
        return
    for audio, labels in find_pairs(folder):
        try:
            pieces = read_pieces(labels, ["phones", "phone"])
        except PowsmError:
            pieces = [Piece([])]
        for piece in pieces:
            try:
                phones = [p for label in piece.labels for p in model.ipa(label.label)]
            except PowsmError:
                phones = []
            yield (lambda a=audio, p=piece: speech_of_piece(model, a, p)), phones


def similar_phones(model: Model) -> dict[str, list[str]]:
    """Of each phone of the model, others whose features differ least."""
    table = feature_table()
    tokens = model.recogniser.tokenizer.token_list
    known = [p for p in phones_of_tokens(tokens) if p in table.index]
    known = [p for p in known if strip_suprasegmentals((p,)) == (p,)]
    values = table.of(known).astype(int)
    far = np.abs(values[:, None] - values[None]).sum(2)
    np.fill_diagonal(far, far.max() + 1)
    order = far.argsort(axis=1, kind="stable")[:, :N_SIMILAR]
    return {p: [known[n] for n in row] for p, row in zip(known, order, strict=True)}


def auc(scores: np.ndarray, is_low: np.ndarray) -> float:
    """How often a row that should be low is below another; ties count half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[places]
    n_low = int(is_low.sum())
    n_other = len(scores) - n_low
    if not n_low or not n_other:
        return math.nan
    above = ranks[~is_low].sum() - n_other * (n_other + 1) / 2
    return float(above / (n_low * n_other))


if __name__ == "__main__":
    main()
