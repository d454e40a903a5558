"""What scripts/bench/pronunciation.py says of scores, worked out by hand."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from powsm.decode.align_files import Segment

BENCH = Path(__file__).parents[1] / "scripts/bench"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCH))
    try:
        return runpy.run_path(str(BENCH / "pronunciation.py"))
    finally:
        sys.path.remove(str(BENCH))


@pytest.mark.parametrize(
    ("scores", "low", "expected"),
    [
        ([1, 2, 3, 4], [1, 1, 0, 0], 1.0),
        ([1, 2, 3, 4], [0, 0, 1, 1], 0.0),
        ([1, 2, 3, 4], [1, 0, 1, 0], 0.75),
        ([1, 1, 1], [1, 0, 0], 0.5),  # ties
        ([1, 2, 2], [0, 1, 0], 0.25),
        ([1, 2], [0, 0], np.nan),
    ],
)
def test_auc(bench, scores, low, expected):
    found = bench["auc"](np.array(scores, float), np.array(low, bool))
    assert found == pytest.approx(expected, nan_ok=True)


def test_pearson_is_numpys(bench):
    x, y = np.random.default_rng(0).normal(size=(2, 30, 2))
    expected = [np.corrcoef(x[:, n], y[:, 0])[0, 1] for n in (0, 1)]
    assert bench["pearson"](x, y[:, 0]) == pytest.approx(expected)
    assert np.isnan(bench["pearson"](np.ones((3, 1)), np.arange(3.0)))


def test_scores_are_set_beside_the_first(bench):
    found = bench["beside_first"](np.array([0.5, 0.75, 0.25]))
    assert dict(zip(bench["COLUMNS"], found, strict=True)) == {
        "log_confidence": 0.5,
        "gop": 0.75,
        "gop_free": 0.25,
        "gop_less_log_confidence": 0.25,
        "gop_free_less_log_confidence": -0.25,
    }


def test_interval_draws_whole_units(bench):
    """Rows of one unit come and go together: nothing varies within."""
    values = np.array([1.0, 1, 1, 3, 3])
    units = np.array([0, 0, 0, 1, 1])
    how = bench["with_interval"]
    ((mean, low, high),) = how(units, lambda rows: values[rows].mean(keepdims=True))
    assert (mean, low, high) == (1.8, 1.0, 3.0)


class Stub:
    """Says phones of one letter; [b] is judged worse the worse people find it."""

    min_samples = 400

    def ipa(self, text):
        return tuple(text.split())

    def align(self, audio, phones, gop, nearest):
        human = float(audio.stem[-1])
        found = []
        for n, phone in enumerate(phones):
            score = human - 3 if phone == "b" else 0.5 * n
            found.append(Segment(phone, n, n + 1, 0.5, None, score, score, "p"))
        return found


def make_speechocean(root):
    scores = {}
    for part in ("train", "test"):
        lines = []
        for number in range(30):
            utt_id = f"{part}{number:02}{number % 3}"
            audio = root / f"WAVE/SPEAKER{number % 5}/{utt_id}.WAV"
            audio.parent.mkdir(parents=True, exist_ok=True)
            audio.touch()
            word = {"phones": ["B", "AW1"], "phones-accuracy": [number % 3, 2.0]}
            scores[utt_id] = {"accuracy": 4 * (number % 3), "words": [word]}
            lines.append(f"{utt_id} {number % 5}\n")
        (root / part).mkdir()
        (root / part / "utt2spk").write_text("".join(lines))
    (root / "scores.json").write_text(json.dumps(scores))


def test_people_are_agreed_with_where_a_score_follows_them(bench, tmp_path):
    make_speechocean(tmp_path)
    found = bench["measure_people"](tmp_path, None, Stub)
    assert found["utterances"] == {"train": [30, 30], "test": [30, 30]}
    assert (found["phones"], found["speakers"], found["left_out"]) == (60, 5, {})
    assert found["published_kaldi"] == 0.42
    assert found["of_phones_fitted"]["gop"] == pytest.approx([1, 1, 1], abs=1e-3)
    for what in ("of_utterances", "of_utterances_fitted"):
        assert found[what]["gop_free"] == pytest.approx([1, 1, 1], abs=1e-3)
    # the diphthong is two segments and one phone; its scores are alike everywhere
    (b, aw) = bench["judge"](
        Stub(),
        "test",
        "x2",
        {"x2": "9"},
        {"x2": {"words": [{"phones": "B AW1", "phones-accuracy": [2, 1]}]}},
        {"x2": Path("x2")},
    )
    assert (b.label, b.human, b.scores[1]) == ("B", 2.0, -1.0)
    assert (aw.label, aw.human, aw.scores[1]) == ("AW", 1.0, 0.75)


def test_scores_of_some_utterances_are_told(bench, tmp_path, capsys):
    make_speechocean(tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    some = {utt_id: scores[utt_id] for utt_id in sorted(scores)[:-20]}
    (tmp_path / "scores.json").write_text(json.dumps(some))
    found = bench["measure_people"](tmp_path, 25, Stub)
    assert found["utterances"] == {"train": [10, 30], "test": [25, 30]}
    told = capsys.readouterr().err
    assert "train: scores.json has 10 of 30 utterances" in told
    assert "test: scores.json has 30 of 30 utterances" in told


def test_fit_sees_the_training_part_alone(bench):
    def rows(part, human):
        row = {"part": part, "utt_id": "u", "speaker": "s", "label": "B"}
        return [
            SimpleNamespace(**row, scores=[float(n)] * 3, human=human(n))
            for n in range(25)
        ]

    said = rows("train", lambda n: n / 24) + rows("test", lambda n: 2.0)
    fitted = bench["fit"](said)
    inside = slice(1, 24)
    assert fitted[25:][inside, 0] == pytest.approx(np.arange(25)[inside] / 24, abs=1e-6)


def test_without_what_people_said_there_is_one_line(bench, tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"no resource/scores\.json, .*openslr"):
        bench["measure_people"](tmp_path, None, lambda: pytest.fail("loads a model"))
