"""A model's timing: chosen by labels, stored beside its weights, and used."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import soundfile
import torch
from ctc_stand_in import BLANK, GRID, START, A, P, T, speech_of, stand_in
from dump_builder import make_dump
from hypothesis import given
from hypothesis import strategies as st
from powsm_command import run_verb
from tiny_model import CTC_SETTINGS, make_experiment, make_tokens

import powsm
from powsm.cli.recordings.calibrate import _found, _labels
from powsm.decode.align import align
from powsm.decode.align_files import Segment, textgrid
from powsm.decode.timing.blanks import LIMITS, USUAL, Timing, intervals
from powsm.decode.timing.calibrate import Labelled, calibrate, cost, errors_ms
from powsm.decode.timing.stored import TimingError, read_timing, write_timing
from powsm.publish.pack import pack

OTHER = Timing(share=0.7, earlier_s=-0.005, before_s=0.02, after_s=0.04)


# ----------------------------------------------------------------------- timings


@given(
    gaps=st.lists(st.integers(0, 20), min_size=1, max_size=8),
    values=st.tuples(
        *(st.floats(*at, allow_subnormal=False) for at in LIMITS.values())
    ),
    frame_s=st.sampled_from([0.02, 0.04]),
)
def test_phones_keep_their_order_and_a_length_with_any_timing(gaps, values, frame_s):
    spans, at = [], 3
    for gap in gaps:
        spans.append((at, at + 1))
        at += 1 + gap
    pauses = [gap * frame_s > 0.16 for gap in gaps[:-1]]
    found = intervals(spans, pauses, at + 5, frame_s, Timing(*values))
    assert all(start < end for start, end in found)
    assert all(a[1] <= b[0] + 1e-9 for a, b in zip(found[:-1], found[1:], strict=True))


@pytest.mark.parametrize("timing", [OTHER, replace(USUAL, share=0.2), USUAL])
def test_the_timing_of_a_model_is_found_by_labels(timing):
    recordings = [labelled(timing, seed) for seed in range(4)]
    tried = []
    found = calibrate(recordings, GRID, tried.append)
    errors = errors_ms(recordings, GRID, found)
    assert cost(errors) < 3.0  # boundaries are moved on a grid of 5 ms
    assert abs(found.share - timing.share) <= 0.1
    for name in ("earlier_s", "before_s", "after_s"):
        assert abs(getattr(found, name) - getattr(timing, name)) <= 0.0101, name
    assert tried[0] == USUAL and len(tried) == len(set(tried))


def labelled(timing, seed):
    """A recording of silence, with phones and the boundaries that `timing` gives."""
    rng = np.random.default_rng(seed)
    places, at = [], 5
    for blank in rng.choice([1, 2, 3, 20], 30, p=[0.3, 0.3, 0.2, 0.2]):
        places.append((at, at + 1))
        at += 1 + int(blank)
    n_frames = at + 5
    pauses = [b - a > 4 for (_, a), (b, _) in zip(places[:-1], places[1:], strict=True)]
    frame_s = GRID.step / 16_000
    times = [
        (GRID.seconds(start), GRID.seconds(end))
        for start, end in intervals(places, pauses, n_frames, frame_s, timing)
    ]
    ends = {
        n: end
        for n, (_, end) in enumerate(times)
        if n + 1 == len(times) or times[n + 1][0] != end
    }
    begins = {n: start for n, (start, _) in enumerate(times)}
    speech = torch.zeros(GRID.step * n_frames + 480)
    return Labelled(places, n_frames, speech, begins, ends)


def test_errors_are_of_beginnings_and_of_ends_before_a_pause():
    one = labelled(USUAL, 0)
    late = replace(one, begins={0: one.begins[0] - 0.1}, ends={})
    assert errors_ms([late], GRID, USUAL) == pytest.approx([100], abs=3)
    n, end = next(iter(one.ends.items()))
    early = replace(one, begins={}, ends={n: end + 0.1})
    assert errors_ms([early], GRID, USUAL) == pytest.approx([-100], abs=3)
    assert cost(np.array([-300.0, 100.0])) == 150  # far ones count as 200


def test_a_recording_is_halved_by_its_phones():
    one = labelled(USUAL, 0)
    first, second = one.halves()
    assert {**first.begins, **second.begins} == one.begins
    assert {**first.ends, **second.ends} == one.ends
    assert max(first.begins) < min(second.begins) == len(one.places) // 2
    assert first.n_boundaries + second.n_boundaries == one.n_boundaries


def test_alignment_follows_the_timing_of_its_model():
    path = [BLANK, START, BLANK, P, BLANK, BLANK, A, A, BLANK, T]
    recogniser = stand_in()
    recogniser.timing = Timing(share=1.0, earlier_s=0.0, before_s=0.0, after_s=0.0)
    found = align(recogniser, speech_of(path), ("p", "a", "t"), finer=False)
    # frame t begins at 0.01 + 0.04 t, and all blanks are the phone's before them
    times = [(s.start, s.end) for s in found]
    assert times == [(0.13, 0.25), (0.25, 0.37), (0.37, 0.43)]


# ------------------------------------------------------------------------ stored


def test_a_stored_timing_is_of_its_weights_alone(tmp_path, caplog):
    config = tmp_path / "config.yaml"
    assert read_timing(config, "abc") == USUAL
    path = write_timing(config, OTHER, ["abc", "def"], {"labels": ["mine"]})
    assert read_timing(config, "abc") == read_timing(config, "def") == OTHER
    assert not caplog.text
    assert read_timing(config, "other") == USUAL
    assert f"{path} is of other weights (abc def) than these (other)" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"timing": {**asdict(OTHER), "share": 1.2}},
            "share is 1.2, expected a number",
        ),
        ({"timing": {**asdict(OTHER), "share": True}}, "share is True, expected"),
        ({"timing": {**asdict(OTHER), "earlier_s": "0"}}, "earlier_s is '0', expected"),
        ({"timing": {"share": 0.5}}, "expected share earlier_s before_s after_s"),
        ({"timing": []}, "expected share earlier_s before_s after_s and no more"),
        ({"weights": "abc"}, "weights is no list"),
        ({"weights": [1]}, "weights is no list"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path, change, said):
    config = tmp_path / "config.yaml"
    path = write_timing(config, OTHER, ["abc"], {})
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(TimingError, match=said) as caught:
        read_timing(config, "abc")
    assert str(path) in str(caught.value) and "powsm calibrate" in str(caught.value)


# ----------------------------------------------------------------------- the verb


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A training set whose normaliser is known, and tokens."""
    root = tmp_path_factory.mktemp("calibrate")
    folder = make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    record = {"policy": "strict", "text_policy": "powsm_fix"}
    (folder / "normaliser.json").write_text(json.dumps(record))
    make_tokens(folder, root / "tokens")
    return root


@pytest.fixture
def exp(root, tmp_path):
    return make_experiment(tmp_path, root / "tokens", base=CTC_SETTINGS)


@pytest.fixture
def labels(exp, tmp_path):
    """Twelve recordings, labelled where the model finds its phones and 20 ms later."""
    folder = tmp_path / "labels"
    folder.mkdir()
    model = powsm.load(exp)
    phones = [t.strip("/") for t in model.recogniser.tokenizer.token_list if "/" in t]
    rng = np.random.default_rng(0)
    for number in range(12):
        path = folder / f"r{number:02d}.wav"
        soundfile.write(path, 0.1 * rng.normal(size=16_000), 16_000)
        said = list(rng.choice(phones, 10))
        found = model.align(path, " ".join(said))
        tier = [
            Segment(s.phone, round(s.start + 0.02, 3), round(s.end + 0.02, 3), 1.0)
            for s in found
        ]
        duration_s = tier[-1].end + 0.1
        text = textgrid({"phones": tier}, duration_s, path.stem)
        path.with_suffix(".TextGrid").write_text(text)
    return folder


def test_verb_stores_what_alignment_then_uses(exp, labels, root, tmp_path, caplog):
    model = powsm.load(exp)
    phones = [t.strip("/") for t in model.recogniser.tokenizer.token_list if "/" in t]
    before = model.align(labels / "r00.wav", phones[:6])
    (labels / "bad.wav").write_bytes((labels / "r00.wav").read_bytes())
    (labels / "bad.TextGrid").write_text("no tiers")
    with caplog.at_level("INFO"):
        run_verb("calibrate", "--model", exp, labels)
    assert "1 recordings without labels, such as " in caplog.text
    assert f"{labels}/bad.TextGrid" in caplog.text
    record = json.loads((exp / "boundaries.json").read_text())
    told = record["on_other_halves"]
    assert told["calibrated"]["mean_ms"] < told["usual"]["mean_ms"]
    assert record["boundaries"] >= 120 and record["labels"] == ["labels"]
    model = powsm.load(exp)
    assert asdict(model.recogniser.timing) == record["timing"] != asdict(USUAL)
    assert model.align(labels / "r00.wav", phones[:6]) != before
    # packed, with the weights that the packed files have
    packed = pack(exp, train_set=root / "train")
    for copy in (packed.folder, packed.archive):
        assert powsm.load(copy).recogniser.timing == model.recogniser.timing
    assert "of other weights" not in caplog.text


def test_weights_that_changed_are_aligned_as_usual(exp, labels, caplog, capsys):
    run_verb("calibrate", "--model", exp, labels)
    run_verb("info", exp)
    assert "boundaries  share 0." in capsys.readouterr().out
    weights = next(exp.glob("valid.*.ave.pth"))
    state = torch.load(weights, weights_only=True)
    state["ctc.ctc_lo.bias"] += 1
    torch.save(state, weights)
    run_verb("info", exp)
    assert "boundaries  usual" in capsys.readouterr().out
    assert powsm.load(exp).recogniser.timing == USUAL
    assert "run `powsm calibrate` again" in caplog.text


def test_labels_of_buckeye_are_pieces_of_a_recording(exp, tmp_path):
    lines = ["0.1 121 SIL", "0.3 122 p", "0.5 122 iy", "0.6 122 IVER", "0.9 122 t"]
    (tmp_path / "s.phones").write_text("\n".join(["s", "#", *lines]) + "\n")
    speech = 0.1 * np.random.default_rng(0).normal(size=16_000)
    soundfile.write(tmp_path / "s.wav", speech, 16_000)
    first, second = _labels([tmp_path / "s.wav"], ["phones"])
    found = _found(powsm.load(exp), *second)
    assert found.begins == {0: 0.0} and found.ends == {0: pytest.approx(0.3)}
    assert len(found.speech) == 4800 and len(found.places) == 1
    assert _found(powsm.load(exp), *first).begins == {
        0: 0.0,
        1: pytest.approx(0.2),
    }


def test_verb_refuses_what_it_cannot_use(exp, labels, tmp_path):
    with pytest.raises(SystemExit, match="--model a/b: no folder, and what is found"):
        run_verb("calibrate", "--model", "a/b", labels)
    with pytest.raises(SystemExit, match="boundaries in 1 recordings, expected 100"):
        run_verb("calibrate", "--model", exp, labels / "r00.wav")
    with pytest.raises(SystemExit, match=r"r00.TextGrid: no tier words; found phones"):
        run_verb("calibrate", "--model", exp, labels, "--tier", "words")
    with pytest.raises(SystemExit, match="nowhere: no such recording or folder"):
        run_verb("calibrate", "--model", exp, labels, tmp_path / "nowhere")
    (labels / "a.wav").write_bytes((labels / "r00.wav").read_bytes())
    (labels / "a.PHN").write_text("0 1600 iy\n")
    with pytest.raises(SystemExit, match="--tier: not used, there is no TextGrid"):
        run_verb("calibrate", "--model", exp, labels / "a.wav", "--tier", "phones")
    (labels / "a.PHN").unlink()
    for path in labels.glob("*.TextGrid"):
        path.unlink()
    with pytest.raises(SystemExit, match=r"a.wav: no .TextGrid or .textgrid or .eaf"):
        run_verb("calibrate", "--model", exp, labels)
    assert not (exp / "boundaries.json").exists()
