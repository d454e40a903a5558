"""What scripts/bench/align_human.py says of boundaries that people set."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

BENCH = Path(__file__).parents[1] / "scripts/bench/align_human.py"
GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "Phones"
        xmin = 0
        xmax = 1
        intervals: size = {n}
"""


@pytest.fixture(scope="module")
def bench():
    return runpy.run_path(str(BENCH))


def write_grid(path, *intervals):
    lines = [GRID.format(n=len(intervals))]
    for number, (start, end, label) in enumerate(intervals, 1):
        lines += [
            f"        intervals [{number}]:\n            xmin = {start}\n",
            f'            xmax = {end}\n            text = "{label}"\n',
        ]
    path.write_text("".join(lines), encoding="utf-8")


STARTS = {"p": 0.11, "a": 0.28, "i": 0.5, "t": 0.7}


def model_that_finds(starts):
    def align_phones(speech, phones):
        return [SimpleNamespace(start=starts[p]) for p in phones]

    return SimpleNamespace(ipa=tuple, align_phones=align_phones, min_samples=1)


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(16_000, 0.01), 16_000)
    return tmp_path / "a.wav"


def test_beginnings_of_labels_are_those_of_their_first_phone(bench, wav):
    write_grid(
        wav.with_suffix(".TextGrid"),
        *((0, 0.1, ""), (0.1, 0.3, "p"), (0.3, 0.6, "ai"), (0.6, 0.7, "")),
        (0.7, 1, "t"),
    )
    ((audio, labels),) = bench["find_pairs"](wav.parent)
    (piece,) = bench["read_pieces"](labels, ("phone", "phones"))
    found, true, inner = bench["beginnings"](model_that_finds(STARTS), audio, piece)
    assert (found, true) == ([0.11, 0.28, 0.7], [0.1, 0.3, 0.7])
    assert inner == [False, True, False]  # silence before p and t


def test_a_stop_of_timit_begins_with_its_closure(bench, wav):
    rows = "0 1600 h#\n1600 3200 tcl\n3200 3360 t\n3360 6400 iy\n6400 8000 kcl\n"
    (wav.parent / "a.PHN").write_text(rows + "8000 16000 h#\n")
    ((audio, labels),) = bench["find_pairs"](wav.parent)
    (piece,) = bench["read_pieces"](labels, ())
    assert piece.labels == [(0.1, 0.21, "t"), (0.21, 0.4, "i")]  # kcl has no release
    found, true, inner = bench["beginnings"](model_that_finds(STARTS), audio, piece)
    assert (true, inner) == ([0.1, 0.21], [False, True])
    assert found == [0.7, 0.5]


def test_utterances_of_buckeye_are_aligned_one_by_one(bench, wav):
    lines = ["0.1 121 SIL", "0.3 122 p", "0.5 122 iy", "0.6 122 IVER", "0.9 122 t"]
    (wav.parent / "a.phones").write_text("\n".join(["a", "#", *lines]) + "\n")
    ((audio, labels),) = bench["find_pairs"](wav.parent)
    first, second = bench["read_pieces"](labels, ())
    assert first.labels == [(0.1, 0.3, "p"), (0.3, 0.5, "i")]
    assert (second.begin_s, second.end_s) == (0.6, 0.9)
    found, true, _ = bench["beginnings"](model_that_finds(STARTS), audio, second)
    assert (found, true) == ([0.6 + STARTS["t"]], [0.6])


def test_silences_of_aligners_are_no_phones(bench, wav):
    rows = ((0, 0.1, "sil"), (0.1, 0.3, "p"), (0.3, 0.6, "a"), (0.6, 1, "SPN"))
    write_grid(wav.with_suffix(".TextGrid"), *rows)
    (piece,) = bench["read_pieces"](wav.with_suffix(".TextGrid"), ["phones"])
    assert [label.label for label in piece.labels] == ["p", "a"]


def test_labels_are_of_the_recording_of_their_name_alone(bench, wav):
    (wav.parent / "a.PHN").write_text("0 1600 iy\n")
    for name in ("a.v2.wav", "b.wav", "a.WAV.wav", ".a.wav"):
        (wav.parent / name).write_bytes(wav.read_bytes())
    # a.WAV.wav is a.wav in another form, and counts once
    assert len(bench["find_pairs"](wav.parent)) == 1
    beside = bench["labels_beside"]
    assert beside(wav.parent / "a.WAV.wav") == wav.parent / "a.PHN"
    assert beside(wav.parent / "a.v2.wav") is None


def test_symbols_that_are_none_are_named(bench, wav):
    (wav.parent / "a.PHN").write_text("0 1600 qq\n")
    with pytest.raises(ValueError, match=r"a.PHN: .*qq"):
        bench["read_pieces"](wav.parent / "a.PHN", ())


def test_labels_that_are_none_are_named(bench, wav):
    (wav.parent / "a.PHN").write_text("0 1600 h#\n1600 x tcl\n")
    ((_, labels),) = bench["find_pairs"](wav.parent)
    with pytest.raises(ValueError, match=r"a.PHN:2: found '1600 x tcl', expected"):
        bench["read_pieces"](labels, ())


def test_summary_counts_distances_and_keeps_the_sign_of_the_bias(bench):
    said = bench["summary"](np.array([-5.0, 10.0, 20.0, 41.0]))
    assert said["n"] == 4 and said["median_ms"] == 15 and said["mean_ms"] == 19
    assert said["bias_ms"] == 15
    assert [said[f"within_{ms}ms"] for ms in (10, 20, 40)] == [50, 75, 75]
    assert bench["summary"](np.array([])) == {}


@pytest.mark.parametrize(
    ("hits", "over", "expected"),
    [
        (1.0, 0.0, 1.0),
        (0.5, 0.0, 1 - (0.5 + 0.5 / 2**0.5) / 2),
        (1.0, 1.0, 1 - (1 + 1 / 2**0.5) / 2),  # all found, and as many invented
    ],
)
def test_r_value(bench, hits, over, expected):
    assert bench["r_value"](hits, over) == pytest.approx(expected)


def test_pairs_leave_out_hidden_files_and_need_labels(bench, tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("x/a.wav", "x/a.TextGrid", "x/._a.wav", "x/._a.TextGrid", "x/b.wav"):
        (tmp_path / name).write_bytes(b"")
    pairs = bench["find_pairs"](tmp_path)
    assert [(a.name, b.name) for a, b in pairs] == [("a.wav", "a.TextGrid")]
    (tmp_path / "x/a.TextGrid").unlink()
    with pytest.raises(SystemExit, match="no recording with a .TextGrid"):
        bench["find_pairs"](tmp_path)
