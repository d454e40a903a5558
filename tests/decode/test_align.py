"""Alignment: times worked out by hand, and the script that aligns a set."""

import json
import math
import re
from functools import partial

import pytest
import torch
from ctc_stand_in import BLANK, GRID, START, TOKENS, A, P, T, speech_of, stand_in
from dump_builder import make_dump
from hypothesis import given
from hypothesis import strategies as st
from powsm_command import run_verb
from tiny_model import make_experiment, make_tokens

from powsm.decode.align import AlignError
from powsm.decode.align import align as align_finely
from powsm.decode.dump_set import decode_set, merge
from powsm.decode.longform import CTCFrames, LongFormError
from powsm.decode.profile import Profile
from powsm.decode.recogniser import Recogniser
from powsm.decode.timing.blanks import Timing
from powsm.decode.timing.stored import digest, write_timing
from powsm.files.datadir import read_scp
from powsm.model.find import find_model

#       0      1      2      3  4      5      6  7  8      9
PATH = [BLANK, START, BLANK, P, BLANK, BLANK, A, A, BLANK, T]
# frame t begins at 0.01 + 0.04 t; the model says p in frame 3, a in 6 and 7, t in 9.
# Of the blanks 4 5 half are p's, of blank 8 a's, and 10 ms less: 0.17 + 0.04 - 0.01 and
# 0.33 + 0.02 - 0.01. p begins 50 ms before frame 3; t goes on
# to the end of the audio, 10 * 0.04 + 0.03.
TIMES = [("p", 0.08, 0.2), ("a", 0.2, 0.34), ("t", 0.34, 0.43)]
CERTAIN = math.exp(8) / (math.exp(8) + 7)  # of 8 tokens


align = partial(align_finely, finer=False)  # on the grid of the frames


def times(segments):
    return [(s.phone, s.start, s.end) for s in segments]


@pytest.mark.parametrize("phones", [None, ("p", "a", "t")])
def test_times_are_those_of_the_frames(phones):
    segments = align(stand_in(), speech_of(PATH), phones)
    assert times(segments) == TIMES
    for segment in segments:
        assert segment.confidence == pytest.approx(CERTAIN, abs=1e-4)


def test_a_phone_that_was_not_said_is_placed_with_little_confidence():
    segments = align(stand_in(), speech_of(PATH), ("p", "i", "a", "t"))
    assert [s.phone for s in segments] == ["p", "i", "a", "t"]
    assert segments[1].confidence < 0.01 < 0.99 < segments[0].confidence
    assert segments[0].end <= segments[1].start < segments[1].end


def test_length_marks_are_kept_but_not_looked_for():
    segments = align(stand_in(), speech_of(PATH), ("p", "aː", "t"))
    assert times(segments)[1] == ("aː", 0.2, 0.34)


@pytest.mark.parametrize("said", ["a", "aː"])
def test_a_head_that_says_lengths_is_asked_for_all_of_them(said, monkeypatch):
    """That of a model without a decoder: [aː] was looked for as [a] alone."""
    recogniser = stand_in()
    tokens = [*TOKENS, "/aː/"]
    recogniser.tokenizer.token_list = tokens
    recogniser.tokenizer.token_ids = {token: n for n, token in enumerate(tokens)}
    recogniser.is_ctc_only = True
    path = torch.tensor([len(TOKENS) if token == A else token for token in PATH])
    logits = 8.0 * torch.nn.functional.one_hot(path, len(tokens))
    scores = logits.log_softmax(-1)

    def frames(recogniser, speech, tokens):
        return CTCFrames(path, scores.amax(-1), scores[:, list(tokens)])

    monkeypatch.setattr("powsm.decode.align.ctc_frames", frames)
    segments = align(recogniser, speech_of(PATH), ("p", said, "t"), gop=True)
    assert times(segments) == [(s.replace("a", said), *at) for s, *at in TIMES]
    assert all(s.confidence > 0.99 and s.gop > 7 for s in segments)
    assert all(s.gop_free > 0 and s.rival not in ("a", "aː") for s in segments[1:2])


def test_a_phone_said_twice_is_two():
    path = [P, BLANK, P, A]
    assert [s.phone for s in align(stand_in(), speech_of(path))] == ["p", "p", "a"]
    twice = align(stand_in(), speech_of([BLANK, *path]), ("p", "p", "a"))
    assert [s.phone for s in twice] == ["p", "p", "a"]


def test_a_long_pause_belongs_to_nobody():
    segments = align(stand_in(), speech_of([P, *[BLANK] * 10, A]))
    assert segments[0].end == 0.11  # frame 1, at 0.05 s, and 0.06
    assert segments[1].start == 0.4  # 0.05 before frame 11, at 0.45 s


@pytest.mark.parametrize(
    ("how", "off"), [(align, 0.001), (align_finely, 0.4 * 0.32 + 0.0026)]
)
def test_a_long_sound_is_no_pause(how, off):
    speech = speech_of([P, *[BLANK] * 8, A])
    # a tone that is 0 in the middle of each frame, where the stand-in looks
    n = torch.arange(len(speech)) - GRID.sample(0) - GRID.step // 2
    first, second = how(stand_in(), speech + 0.3 * torch.sin(2 * math.pi * n / 20))
    assert first.end == second.start
    assert first.end == pytest.approx(0.05 + 0.32 / 2 - 0.01, abs=off)


def test_silence_has_no_segments():
    assert align(stand_in(), speech_of([BLANK] * 5)) == []


@pytest.mark.parametrize(
    ("phones", "message"),
    [
        (("p", "x", "ʘ", "x"), "no token for x ʘ"),
        ((), "no phones to align"),
        (("p", "p", "a", "t", "p", "p", "a", "t"), "need 11 frames, the audio has 10"),
    ],
)
def test_phones_that_cannot_be_aligned(phones, message):
    with pytest.raises(AlignError, match=message):
        align(stand_in(), speech_of(PATH), phones)


def test_audio_too_short_to_encode_says_how_long_it_must_be():
    with pytest.raises(LongFormError, match=r"0.050 s .* needs 0.060 s"):
        align(stand_in(), torch.zeros(800))


@given(st.lists(st.sampled_from([BLANK, P, A, T]), min_size=1, max_size=30))
def test_segments_are_in_order_and_within_the_audio(path):
    speech = speech_of(path)
    for how in (align, align_finely):
        ends = [0.0]
        for segment in how(stand_in(), speech):
            assert ends[-1] <= segment.start < segment.end
            ends.append(segment.end)
        assert ends[-1] <= round(len(speech) / 16_000, 4)


def test_boundaries_move_to_where_the_sound_changes_and_stay_shared():
    plain = align(stand_in(), speech_of(PATH), ("p", "a", "t"))
    finer = align_finely(stand_in(), speech_of(PATH), ("p", "a", "t"))
    assert [s.phone for s in finer] == [s.phone for s in plain]
    assert finer[0].end == finer[1].start and finer[1].end == finer[2].start
    assert times(finer) != times(plain)
    for new, old in zip(finer, plain, strict=True):
        assert abs(new.start - old.start) < 0.07 and abs(new.end - old.end) < 0.07


def test_a_whole_model_aligns_its_reference(tmp_path):
    make_dump(tmp_path / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    recogniser = Recogniser.load(
        make_experiment(tmp_path, make_tokens(tmp_path / "train", tmp_path / "tokens"))
    )
    phones = ("p", "a", "t")
    speech = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) / 10
    segments = align(recogniser, speech, phones)
    assert tuple(s.phone for s in segments) == phones
    assert all(0 <= s.start < s.end <= 1 and 0 < s.confidence < 1 for s in segments)
    align(recogniser, speech)


@pytest.fixture
def decoded(tmp_path):
    """(exp, dump, profile): a set decoded by a random model, one recording spoilt."""
    folder = make_dump(tmp_path / "dump/test", [0.6, 0.8, 1.0, 0.7], seed=1)
    exp = make_experiment(tmp_path, make_tokens(folder, tmp_path / "tokens"))
    (folder / "normaliser.json").write_text(
        '{"policy": "strict", "version": "strict/2"}'
    )
    profile = tmp_path / "decode_ctc.yaml"
    profile.write_text("decode: ctc\n")
    bad = folder / "wav/tiny_u0001_ita.wav"
    bad.write_text("this is no sound")
    out = exp / "decode_ctc/test/pr_ctc"
    recogniser, how = Recogniser.load(exp), Profile.load(profile)
    decode_set(recogniser, how, "pr", folder, out)
    merge(folder, "pr", out, profile=how, weights=recogniser.weights)
    return exp, folder.parent, profile


GOOD = ["tiny_u0000_eng", "tiny_u0002_eng", "tiny_u0003_ita"]


def test_verb_aligns_references_and_names_what_it_cannot(decoded, caplog):
    exp, dump, _ = decoded
    with caplog.at_level("INFO"):
        run_verb("align-set", "--exp", exp, "--dump", dump, "--sets", "test", "--ref")
    out = exp / "align/test"
    assert sorted(path.stem for path in out.glob("*.TextGrid")) == GOOD
    rows = list(map(json.loads, (out / "phones.jsonl").open()))
    refs = dict(read_scp(dump / "test/ref.ipa"))
    assert {
        row["utt_id"]: "".join(f"/{s['phone']}/" for s in row["segments"])
        for row in rows
    } == {utt_id: refs[utt_id] for utt_id in GOOD}
    assert "tiny_u0001_ita.wav: these 16 bytes do not decode as audio" in caplog.text
    assert "in 3 utterances, 1 could not be aligned" in caplog.text


def test_verb_aligns_what_was_decoded_once(decoded, caplog):
    exp, dump, profile = decoded
    out = exp / "decode_ctc/test/pr_ctc"
    # the stand-in for a good model: what it "decoded" is what was said
    refs = dict(read_scp(dump / "test/ref.ipa"))
    rows = [json.loads(line) for line in (out / "hyp.jsonl").open()]
    for row in rows:
        if "error" not in row:
            row["tokens"] = ["▁", *re.findall(r"/[^/]+/", refs[row["utt_id"]])]
    rows[-1]["tokens"] = []  # nothing was heard
    (out / "hyp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--exp", exp, "--dump", dump, "--sets", "test", "--profiles", profile]
    run_verb("align-set", *arguments)
    lines = (out / "align/phones.ctm").read_text().splitlines()
    for utt_id in GOOD:
        said = [row.split()[4] for row in lines if row.startswith(utt_id)]
        expected = refs[utt_id].split("/")[1::2] if utt_id != GOOD[-1] else []
        assert said == expected
        assert (out / f"align/{utt_id}.TextGrid").exists()
    before = (out / "align/phones.ctm").stat().st_mtime_ns
    with caplog.at_level("INFO"):
        run_verb("align-set", *arguments)
    assert "align is current" in caplog.text
    assert (out / "align/phones.ctm").stat().st_mtime_ns == before


def test_verb_aligns_again_by_the_timing_of_a_calibration(decoded, caplog):
    exp, dump, _ = decoded
    arguments = ["--exp", exp, "--dump", dump, "--sets", "test", "--ref"]
    run_verb("align-set", *arguments)
    out = exp / "align/test/phones.ctm"
    usual = out.read_text()
    weights = digest(find_model(exp).weights_file)
    timing = Timing(share=1.0, earlier_s=0.0, before_s=0.0, after_s=0.0)
    path = write_timing(exp / "config.yaml", timing, [weights], {})
    run_verb("align-set", *arguments)
    calibrated = out.read_text()
    assert calibrated != usual
    path.unlink()
    run_verb("align-set", *arguments)
    assert out.read_text() == usual
    with caplog.at_level("INFO"):
        run_verb("align-set", *arguments)
    assert "align/test is current" in caplog.text


def test_verb_leaves_out_tasks_that_a_set_does_not_have(decoded, caplog):
    exp, dump, profile = decoded
    for file in (dump / "test").iterdir():  # as a set of phones without texts
        rows = file.read_text().splitlines(keepends=True) if file.is_file() else []
        if kept := [row for row in rows if row.split()[0].endswith("_pr")]:
            file.write_text("".join(kept))
    profile.write_text("decode: ctc\ntasks: [pr, g2p]\n")
    arguments = ["--exp", exp, "--dump", dump, "--sets", "test", "--profiles", profile]
    with caplog.at_level("INFO"):
        run_verb("align-set", *arguments)
    assert "no g2p example, nothing to align" in caplog.text
    assert (exp / "decode_ctc/test/pr_ctc/align/phones.ctm").exists()


def test_verb_names_what_was_not_decoded(decoded):
    exp, dump, profile = decoded
    arguments = ["--exp", exp, "--dump", dump, "--sets", "test", "--profiles", profile]
    (exp / "decode_ctc/test/pr_ctc/hyp.jsonl").unlink()
    with pytest.raises(SystemExit, match="is missing: decode test with decode_ctc"):
        run_verb("align-set", *arguments)


def test_verb_says_when_no_profile_has_phones(decoded, tmp_path):
    exp, dump, _ = decoded
    (tmp_path / "decode_words.yaml").write_text("tasks: [asr]\n")
    arguments = ["--exp", exp, "--dump", dump, "--sets", "test"]
    with pytest.raises(SystemExit, match="none of the profiles decodes phones"):
        profile = tmp_path / "decode_words.yaml"
        run_verb("align-set", *arguments, "--profiles", profile)
