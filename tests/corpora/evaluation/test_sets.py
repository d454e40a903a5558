"""Evaluation sets: each corpus from its own layout to a set that can be decoded."""

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import eval_corpora
import numpy as np
import pytest
from shar_builder import write_tar

from powsm.audio import read_audio
from powsm.corpora.evaluation.buckeye import Label, read_labels, utterances
from powsm.corpora.evaluation.dump_set import PhoneSetError, write_phone_set
from powsm.corpora.evaluation.kaldi_folder import CorpusError
from powsm.corpora.evaluation.sets import PREPARE, prepare_eval_set
from powsm.corpora.evaluation.textgrid import TextGridError, read_tier
from powsm.errors import PowsmError
from powsm.files.datadir import EXAMPLE_FILES, read_scp, validate
from powsm.phones.unknown import UnknownSymbolsError
from powsm.report.paper.plan import size_faults
from powsm.report.paper.sets import TestSet, load_sets

ROOT = Path(__file__).parents[3]

# set, builder, then what each file of the Kaldi folder must hold
CASES = {
    "timit": (
        "test_timit",
        eval_corpora.make_timit,
        {
            "text.good": {"train-fcjf0-sa1": "ʃ i d͡ʒ", "test-mpkt0-sx9": "ə̥ ʔ"},
            "text.raw": {"train-fcjf0-sa1": "h# sh iy dcl jh"},
            "text.asr": {"train-fcjf0-sa1": "She had your dark suit."},
            "text.lang": {"train-fcjf0-sa1": "eng"},
            "utt2spk": {"test-mpkt0-sx9": "mpkt0"},
        },
        "kept 2 of 3 utterances (no_audio=1)",
    ),
    # the interviewer and the name cut; the pause of 0.4 s does not; [zz] is unknown;
    # the 18.0 s after it are within the window, [k] alone is too short
    "buckeye": (
        "test_buckeye",
        eval_corpora.make_buckeye,
        {
            "text.good": {
                "s0101a-0000500": "h a ɪ ɾ̃",
                "s0101a-0006000": "ɪ",
                "s0101a-0012000": "ɑ m",
            },
            "text.raw": {"s0101a-0000500": "hh ay SIL nx"},
            "text.asr": {"s0101a-0000500": "hi n'", "s0101a-0006000": ""},
            "utt2spk": {"s0101a-0000500": "s01"},
        },
        "kept 3 of 5 utterances (too_short=1 unknown_label:zz=1)",
    ),
    "buckeye of anyspeech": (
        "test_buckeye",
        eval_corpora.make_buckeye_shar,
        {
            "text.good": {"s10_4829-0": "haɪ ɾ̃", "s10_4830-1": "haɪ ɾ̃"},
            "text.asr": {"s10_4829-0": "hi n'"},
            "utt2spk": {"s10_4829-0": "s10"},
        },
        "kept 2 of 3 utterances (no_audio=1)",
    ),
    # perceived: DH heard as D, K not at all, an inserted AX, an ERR that is no phone
    "l2arctic": (
        "test_l2arctic",
        eval_corpora.make_l2arctic,
        {
            "text.good": {"ABA-arctic_a0001": "d ə ə ɛ", "ABA-arctic_a0002": "w i"},
            "text.raw": {
                "ABA-arctic_a0001": "sil DH,D,s AH0 K,sil,d sil,AX,a AE1,EH*,s "
                "T,ERR,s sp"
            },
            "text.asr": {"ABA-arctic_a0001": "The cat."},
        },
        "kept 2 of 2 utterances",
    ),
    # Th is aspirated, TH is dental
    "epadb": (
        "test_epadb",
        eval_corpora.make_epadb,
        {
            "text.good": {"spkr14_1": "ə tʰ i θ", "spkr103_2": "t͡ʃ i"},
            "text.raw": {"spkr14_1": "sil AX Th+ IY1* TH 0 err sp"},
            "text.asr": {"spkr14_1": "a tea"},
            "utt2spk": {"spkr14_1": "spkr14"},
        },
        "kept 2 of 4 utterances (no_audio=1 unknown_label:QQ=1)",
    ),
    "epadb of KoelLabs": (
        "test_epadb",
        eval_corpora.make_koellabs,
        {
            "text.good": {
                "test-00000-of-00001-00000": "ʃiː",
                "train-00000-of-00001-00000": "lɛtspleɪsɔkə",
            },
            "text.asr": {"test-00000-of-00001-00000": "she"},
        },
        "kept 2 of 3 utterances (too_long=1)",
    ),
    "speechocean762": (
        "test_speechocean762",
        eval_corpora.make_speechocean762,
        {"text.good": {"000010011": "d i s"}, "text.raw": {"000010011": "D IY S"}},
        "kept 1 of 6 utterances (no_audio=1 no_transcript=1 th=1 unclear_phone=2)",
    ),
    "speechocean762, test part": (
        "test_speechocean762_test",
        eval_corpora.make_speechocean762,
        {"text.good": {"000010011": "d i s"}},
        "kept 1 of 1 utterances",
    ),
    "tusom2021": (
        "test_tusom2021",
        eval_corpora.make_tusom2021,
        {
            "text.good": {"animals1-10": "ɕi", "animals1-83": "səŋõ"},
            "text.raw": {"animals1-10": "ɕi˧˩"},
            "text.lang": {"animals1-10": "und"},
        },
        "kept 2 of 3 utterances (no_audio=1)",
    ),
    "voxangeles": (
        "test_voxangeles",
        eval_corpora.make_voxangeles,
        {
            "text.good": {"abk-002-042": "at͡ʃʼɘχɘrɜ", "afn-005-059": "ĩj̃ ĩ"},
            "text.raw": {"abk-002-042": "atʃʼɘ́χrɜ"},
            "text.lang": {"abk-002-042": "abk", "afn-005-059": "afn"},
            "utt2spk": {"abk-002-042": "abk-002"},
        },
        "kept 2 of 3 utterances (no_audio=1)",
    ),
    # 12 labels make a unit; the pause and the filled pause are no phones
    "drc_se": (
        "test_drc_se",
        eval_corpora.make_drc_se,
        {
            "text.good": {"mc_english_kent01-0001_A": "aɪ w ə z b ɔː n ɪ n t͡ʃ"},
            "text.asr": {"mc_english_kent01-0001_A": "word0 word1 word2"},
            "utt2spk": {"mc_english_kent01-0001_A": "EN01"},
        },
        "kept 1 of 3 utterances (few_labels=1 speaker_without_phones=1)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_corpus_becomes_a_set_that_can_be_decoded(case, tmp_path, caplog):
    name, build, files, summary = CASES[case]
    caplog.set_level("INFO")
    made = prepare_eval_set(
        name,
        build(tmp_path / "source"),
        tmp_path / "data",
        tmp_path / "dump",
        allow_incomplete=name == "test_voxangeles",  # a language has no audio
    )
    folder = tmp_path / "data/eval" / name
    for file, expected in files.items():
        found = dict(read_scp(folder / file))
        assert {key: found[key] for key in expected} == expected
    kept = dict(read_scp(folder / "text.good"))
    assert kept == files["text.good"]
    assert f"{name}: {summary}, " in caplog.text
    assert made.n_utts == len(kept)
    assert validate(tmp_path / "dump" / name, EXAMPLE_FILES).n_utts >= len(kept)
    references = dict(read_scp(tmp_path / "dump" / name / "ref.ipa"))
    assert sorted(references.values()) == sorted(kept.values())
    n_samples = dict(read_scp(tmp_path / "dump" / name / "utt2num_samples"))
    for example_id, location in read_scp(tmp_path / "dump" / name / "wav.scp"):
        assert len(read_audio(location)) == int(n_samples[example_id])


def test_every_set_has_a_module_and_every_module_a_test():
    sets = load_sets(ROOT / "conf/tables/sets.yaml")
    with_variable = {name for name, known in sets.items() if known.variable}
    assert with_variable - {"test_saa"} == set(PREPARE)  # SAA: PRiSM's folder alone
    assert {name for name, *_ in CASES.values()} == set(PREPARE)
    recipe = (ROOT / "egs2/powsm/s2t1/db.sh").read_text()
    for name in with_variable:
        assert f"export {sets[name].variable}=${{{sets[name].variable}:-}}" in recipe


def test_orthography_gives_the_g2p_examples_of_table_6(tmp_path):
    source = eval_corpora.make_buckeye(tmp_path / "source")
    prepare_eval_set("test_buckeye", source, tmp_path / "data", tmp_path / "dump")
    folder = tmp_path / "dump/test_buckeye"
    prompts = dict(read_scp(folder / "text.prev"))
    assert prompts["buckeye_s0101a-0000500_eng_g2p"] == "hi n'"
    assert "buckeye_s0101a-0006000_eng_g2p" not in prompts  # nobody knows the word
    assert dict(read_scp(folder / "ref.text"))["buckeye_s0101a-0000500_eng"] == "hi n'"


def test_orthography_has_the_policy_that_is_asked_for(tmp_path):
    source = eval_corpora.make_buckeye(tmp_path / "source")
    where = ("test_buckeye", source, tmp_path / "data", tmp_path / "dump")
    prepare_eval_set(*where, text_policy="released")
    folder = tmp_path / "dump/test_buckeye"
    # the first recipe deletes the apostrophe with all punctuation
    assert dict(read_scp(folder / "ref.text"))["buckeye_s0101a-0000500_eng"] == "hi n"
    made_with = json.loads((folder / "normaliser.json").read_text())
    assert made_with["text_policy"] == "released"
    raw = (folder / "ref.raw.ipa").read_text()
    assert raw == (folder / "ref.ipa").read_text()  # the labels are human


# --- audio ----------------------------------------------------------------------------


def test_cut_holds_the_samples_of_its_stretch(tmp_path):
    source = eval_corpora.make_buckeye(tmp_path / "source")
    PREPARE["test_buckeye"](source, tmp_path / "out")
    (path,) = (v for k, v in read_scp(tmp_path / "out/wav.scp") if k.endswith("06000"))
    whole = eval_corpora.tone(30.0)[:, 0]
    found = np.round(read_audio(path) * 32768).astype(int)
    assert np.array_equal(found, whole[6 * 16_000 : round(6.8 * 16_000)])


def test_whole_recordings_and_shards_are_read_where_they_are(tmp_path):
    source = eval_corpora.make_timit(tmp_path / "timit")
    PREPARE["test_timit"](source, tmp_path / "out")
    locations = dict(read_scp(tmp_path / "out/wav.scp"))
    assert locations["train-fcjf0-sa1"].startswith(str(source))
    assert not (tmp_path / "out/audio").exists()
    source = eval_corpora.make_buckeye_shar(tmp_path / "shar")
    PREPARE["test_buckeye"](source, tmp_path / "out")
    location = dict(read_scp(tmp_path / "out/wav.scp"))["s10_4830-1"]
    assert ".tar:" in location and len(read_audio(location)) == 1600


def test_shard_that_lacks_audio_of_its_cuts_is_refused(tmp_path):
    source = eval_corpora.make_buckeye_shar(tmp_path / "shar")
    path = source / "buckeye_shar/recording.000000.tar"
    with tarfile.open(path) as tar:
        kept = [(m.name, tar.extractfile(m).read()) for m in tar if "4829" in m.name]
    write_tar(path, kept)
    with pytest.raises(
        CorpusError, match=r"000000.tar: no audio of 2 cuts, such as s1"
    ):
        PREPARE["test_buckeye"](source, tmp_path / "out")


def test_two_channels_become_their_mean(tmp_path):
    source = eval_corpora.make_tusom2021(tmp_path / "source")
    PREPARE["test_tusom2021"](source, tmp_path / "out")
    path = dict(read_scp(tmp_path / "out/wav.scp"))["animals1-83"]
    expected = eval_corpora.tone()[:, 0] / 2 / 32768  # the other channel is silent
    assert np.abs(read_audio(path) - expected).max() < 1 / 32768


# --- Buckeye's cuts -------------------------------------------------------------------


def labels(text: str) -> list[Label]:
    """`symbol:end` pairs."""
    start = 0.0
    made = []
    for pair in text.split():
        symbol, _, end = pair.rpartition(":")
        made.append(Label(start, float(end), symbol))
        start = float(end)
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SIL:1 aa:2 SIL:2.9 b:3", ["aa SIL b"]),  # a pause of 0.9 s does not cut
        ("SIL:1 aa:2 SIL:3 b:4", ["aa", "b"]),  # one of 1.0 s does
        ("aa:2 IVER:2.1 b:3", ["aa", "b"]),  # the interviewer does
        ("SIL:1 LAUGH:2", []),
        # 30 s are cut at their longest pause
        ("aa:9 SIL:9.1 b:14 SIL:14.5 k:30", ["aa SIL b", "k"]),
        ("aa:30", ["aa"]),  # no pause to cut at: left out later
        ("aa:9 SIL:9.1 b:20", ["aa SIL b"]),  # as long as the window
        ("SIL:0.5 aa:2 SIL:2.3 b:3 VOCNOISE:3.4", ["aa SIL b"]),  # no pauses at ends
    ],
)
def test_utterances_of_a_track(text, expected):
    found = [" ".join(label.symbol for label in u) for u in utterances(labels(text))]
    assert found == expected


def test_labels_of_a_file_without_header_are_read(tmp_path):
    (tmp_path / "x.phones").write_text("1.0 121 aa; *\n1.0 121 b\n2.0 121\n")
    # a label of no length is none; a line without label is silence
    assert read_labels(tmp_path / "x.phones") == labels("aa:1 SIL:2")


# --- TextGrids ------------------------------------------------------------------------


def test_textgrid_without_the_tier_names_those_there_are(tmp_path):
    path = tmp_path / "x.TextGrid"
    eval_corpora.write_grid(path, words=[(0, 1, 'say "a"')])
    (interval,) = read_tier(path.read_bytes(), "phones", "Words", where=path)
    assert interval.label == 'say "a"'
    with pytest.raises(TextGridError, match="no tier phones; found words"):
        read_tier(path.read_bytes(), "phones", where=path)
    with pytest.raises(TextGridError, match="not UTF-8"):
        read_tier(b"\xff\xff", "phones", where=path)


# --- faults ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", PREPARE)
def test_folder_of_something_else_is_refused(name, tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(CorpusError, match=str(tmp_path)):
        prepare_eval_set(name, tmp_path / "source", tmp_path, tmp_path / "dump")
    assert not (tmp_path / "dump").exists()


def test_a_set_that_fails_leaves_the_old_one(tmp_path):
    source = eval_corpora.make_timit(tmp_path / "source")
    prepare_eval_set("test_timit", source, tmp_path, tmp_path / "dump")
    before = (tmp_path / "eval/test_timit/text.good").read_bytes()
    bad = next(source.rglob("SX9.PHN"))
    bad.write_text("0 100 nonsense\n")
    with pytest.raises(ValueError, match="nonsense not in phone map 'timit'"):
        prepare_eval_set("test_timit", source, tmp_path, tmp_path / "dump")
    assert (tmp_path / "eval/test_timit/text.good").read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "eval").iterdir()) == ["test_timit"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timit", "begins with test_"),
        ("test_unheard", "no wav.scp, and test_unheard is none of test_buckeye"),
    ],
)
def test_unknown_set_is_refused(name, message, tmp_path):
    with pytest.raises(PhoneSetError, match=message):
        prepare_eval_set(name, tmp_path, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("name", "make", "pattern"),
    [
        ("test_buckeye", eval_corpora.make_buckeye_shar, "cuts.*.gz"),
        ("test_buckeye", eval_corpora.make_buckeye_shar, "recording.*.tar"),
        ("test_epadb", eval_corpora.make_koellabs, "*.parquet"),
        ("test_voxangeles", eval_corpora.make_voxangeles, "abk.zip"),
    ],
)
def test_copy_that_is_cut_off_is_named(name, make, pattern, tmp_path):
    source = make(tmp_path / "source")
    path = next(source.rglob(pattern))
    data = path.read_bytes()
    for content in (data[: len(data) // 2], b""):
        path.write_bytes(content)
        with pytest.raises(PowsmError, match=re.escape(path.name)):
            prepare_eval_set(name, source, tmp_path, tmp_path / "dump")


# --- Kaldi folders of PRiSM -----------------------------------------------------------


def test_prism_folder_says_languages_in_its_text_and_paths_from_its_root(tmp_path):
    folder = tmp_path / "dump/raw/test_x"
    eval_corpora.write_wav(folder / "recording/abk/a.wav")
    scp = "dump/raw/test_x/recording/abk/a.wav"
    (folder / "wav.scp").write_text(f"a {scp}\n")
    (folder / "text.good").write_text("a p a\n")
    (folder / "text").write_text("a_pr <abk><pr><notimestamps> /p//a/\n")
    write_phone_set(folder, tmp_path / "made/test_x")
    assert dict(read_scp(tmp_path / "made/test_x/utt2lang")) == {"x_a_abk_pr": "abk"}
    with pytest.raises(PhoneSetError, match="--lang fin: .* says the languages of its"):
        write_phone_set(folder, tmp_path / "made/test_x", lang="fin")
    with pytest.raises(PhoneSetError, match="--lang russkij: no such language"):
        write_phone_set(folder, tmp_path / "made/test_x", lang="russkij")
    # orthography says none, whatever its words are called; nor does "not known"
    (folder / "text").write_text("a eng\n")
    (folder / "text.lang").write_text("a und\n")
    for found in ("fin", "und"):
        lang = None if found == "und" else found
        write_phone_set(folder, tmp_path / f"{found}/test_x", lang=lang)
        ((_, code),) = read_scp(tmp_path / found / "test_x/utt2lang")
        assert code == found
    (folder / "text.lang").unlink()
    write_phone_set(folder, tmp_path / "none/test_x")
    ((_, code),) = read_scp(tmp_path / "none/test_x/utt2lang")
    assert code == "und"


def test_ids_that_end_like_examples_have_their_language(tmp_path):
    eval_corpora.write_wav(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("a_pr a.wav\n")
    (tmp_path / "text.good").write_text("a_pr pa\n")
    (tmp_path / "text.lang").write_text("a_pr fin\n")
    write_phone_set(tmp_path, tmp_path / "dump/test_x")
    assert dict(read_scp(tmp_path / "dump/test_x/utt2lang")) == {"x_a_pr_fin_pr": "fin"}


def test_utterances_of_nobody_are_not_of_one_speaker(tmp_path):
    eval_corpora.write_wav(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("u/1 a.wav\nu2 a.wav\nu3 a.wav\n")
    (tmp_path / "text.good").write_text("u/1 pa\nu2 ta\nu3 ka\n")
    (tmp_path / "utt2spk").write_text("u/1\nu3 s1\n")
    write_phone_set(tmp_path, tmp_path / "dump/test_x", lang="fin")
    speakers = dict(read_scp(tmp_path / "dump/test_x/utt2speaker"))
    assert [*speakers.values()] == ["x_u2_fin", "s1", "x_u@2F1_fin"]


# --- sizes ----------------------------------------------------------------------------


def test_another_size_than_the_published_one_is_told(tmp_path):
    source = eval_corpora.make_timit(tmp_path / "source")
    prepare_eval_set("test_timit", source, tmp_path, tmp_path / "dump")
    hours = 2 / 3600  # two recordings of a second
    same = {"test_timit": TestSet(hours, "", n_utts=2, hours_by_lang={"eng": hours})}
    assert size_faults(["test_timit", "test_absent"], tmp_path / "dump", same) == []
    other = {
        "test_timit": TestSet(
            hours * 1.25, "", n_utts=6300, hours_by_lang={"afr": 0.66}
        )
    }
    assert size_faults(["test_timit"], tmp_path / "dump", other) == [
        "test_timit: 0.0005556 h found, 0.0006944 published (-20 %)",
        "test_timit: 2 utterances found, 6,300 published (-100 %)",
        "test_timit (afr): 0 h found, 0.66 published (-100 %)",
    ]


# --- command --------------------------------------------------------------------------


def command(tmp_path: Path, *options: str, **variables: str):
    return subprocess.run(
        [sys.executable, str(ROOT / "local/prepare_eval_set.py"), *options],
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


def test_command_takes_sets_from_the_variables_of_db_sh(tmp_path):
    done = command(
        tmp_path,
        *("--set", "timit", "test_tusom2021"),
        TIMIT=str(eval_corpora.make_timit(tmp_path / "a")),
        TUSOM2021=str(eval_corpora.make_tusom2021(tmp_path / "b")),
    )
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "dump/raw").iterdir()} == {
        "test_timit",
        "test_tusom2021",
    }
    assert "test_timit: 2 utterances found, 6,300 published" in done.stderr
    record = json.loads((tmp_path / "dump/raw/test_timit/normaliser.json").read_text())
    assert record["policy"] == "strict"


def test_command_without_a_source_says_which_variable(tmp_path):
    done = command(tmp_path, "--set", "timit", TIMIT="")
    assert done.returncode == 1
    assert "set TIMIT in db.sh; licence: TIMIT is sold" in done.stderr
    done = command(tmp_path, "--set", "fleurs")
    assert "IPAPack++, stages 0 to 4" in done.stderr


@pytest.mark.parametrize("text", ["Q Q a", "k{t", "pa日", "@ t", "h%@"])
def test_set_of_unknown_symbols_is_refused(tmp_path, text):
    eval_corpora.write_wav(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("u1 a.wav\n")
    (tmp_path / "text.good").write_text(f"u1 {text}\n", encoding="utf-8")
    out = tmp_path / "dump/test_x"
    with pytest.raises(UnknownSymbolsError, match="IPA characters are unknown"):
        write_phone_set(tmp_path, out, lang="fin")
    assert not out.exists()
    write_phone_set(tmp_path, out, lang="fin", max_unknown_rate=1.0)


def test_what_a_set_leaves_out_is_logged_by_kind(tmp_path, caplog):
    eval_corpora.write_wav(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("u1 a.wav\n")
    (tmp_path / "text.good").write_text("u1 ˈma˥.na t͈a\n", encoding="utf-8")
    caplog.set_level("INFO")
    write_phone_set(tmp_path, tmp_path / "dump/test_x", lang="kor")
    assert "break=1 diacritic=1 stress=1 tone=1" in caplog.text


# corpus, reason, and the utterance that is left out for it
LEFT_OUT = [
    ("timit", "no_audio", "train-fcjf0-sa2"),
    ("buckeye", "too_short", "s0101a-0007000"),
    ("buckeye of anyspeech", "no_audio", "s10_4831-2"),
    ("epadb", "no_audio", "spkr103_4"),
    ("epadb", "unknown_label:QQ", "spkr103_3"),
    ("speechocean762", "th", "000010012"),
    ("speechocean762", "no_transcript", "000010016"),
    ("speechocean762", "unclear_phone", "000010013"),
    ("tusom2021", "no_audio", "verbs9-1"),
    ("voxangeles", "no_audio", "bem-000-000"),
    ("drc_se", "few_labels", "mc_english_kent01-0002_A"),
    ("drc_se", "speaker_without_phones", "mc_english_kent01-0003_A"),
]


@pytest.mark.parametrize(("case", "reason", "utt_id"), LEFT_OUT)
def test_what_is_left_out_is_named(case, reason, utt_id, tmp_path, caplog):
    name, build, *_ = CASES[case]
    caplog.set_level("INFO")
    where = build(tmp_path / "source"), tmp_path / "data", tmp_path / "dump"
    prepare_eval_set(name, *where, allow_incomplete=True)
    rows = (tmp_path / "data/eval" / name / "left_out.tsv").read_text().splitlines()
    assert f"{reason}\t{utt_id}" in rows
    assert f"{reason}: {utt_id}" in caplog.text
    counts = json.loads((tmp_path / "dump" / name / "set.json").read_text())["left_out"]
    assert counts[reason] == sum(row.startswith(f"{reason}\t") for row in rows)


def test_utterances_without_words_are_told(tmp_path, caplog):
    caplog.set_level("INFO")
    source = eval_corpora.make_buckeye(tmp_path / "source")
    for found, n_without in ((True, 2), (False, 3)):  # two are of no word
        if not found:
            (source / "s01/s0101a/s0101a.words").unlink()
        prepare_eval_set("test_buckeye", source, tmp_path / "data", tmp_path / "dump")
        assert f" h, {n_without} utterances without their words" in caplog.text


def test_recordings_without_a_transcript_are_named(tmp_path):
    source = eval_corpora.make_tusom2021(tmp_path / "source")
    eval_corpora.write_wav(source / "data/wav/birds1-1.wav")
    prepare_eval_set("test_tusom2021", source, tmp_path / "data", tmp_path / "dump")
    left_out = tmp_path / "data/eval/test_tusom2021/left_out.tsv"
    assert "no_transcript\tbirds1-1\n" in left_out.read_text()


def test_missing_archives_stop_the_preparation_or_are_told(tmp_path):
    source = eval_corpora.make_voxangeles(tmp_path / "source")
    where = "test_voxangeles", source, tmp_path / "data", tmp_path / "dump"
    with pytest.raises(CorpusError, match=r"no audio of 1 of 3 languages .*: bem; get"):
        prepare_eval_set(*where)
    assert not (tmp_path / "data/eval/test_voxangeles").exists()
    prepare_eval_set(*where, allow_incomplete=True)
    known = {"test_voxangeles": TestSet(None, "somewhere")}
    assert size_faults(known, tmp_path / "dump", known) == [
        "test_voxangeles: incomplete, without bem"
    ]


def test_speechocean_names_what_is_not_there(tmp_path):
    source = eval_corpora.make_speechocean762(tmp_path / "source")
    where = "test_speechocean762", source, tmp_path / "data", tmp_path / "dump"
    (source / "resource/scores.json").unlink()
    with pytest.raises(CorpusError, match="nor resource/scores.json"):
        prepare_eval_set(*where)
    (source / "resource/scores.json").write_text("{}")
    for path in source.rglob("*.WAV"):
        path.unlink()
    with pytest.raises(CorpusError, match="nor WAVE/SPEAKER<n>"):
        prepare_eval_set(*where)


def test_speechocean_names_what_was_not_judged(tmp_path):
    source = eval_corpora.make_speechocean762(tmp_path / "source")
    with (source / "test/utt2spk").open("a") as lists:
        lists.write("000010016\t0001\n")
    name = "test_speechocean762_test"
    prepare_eval_set(name, source, tmp_path / "data", tmp_path / "dump")
    rows = (tmp_path / "data/eval" / name / "left_out.tsv").read_text()
    assert "no_transcript\t000010016\n" in rows


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        # what should be [ð] leaves the paper's selection, heard or not
        ("test_speechocean762", {"000010011": "d i s"}),
        ("test_speechocean762_test", {"000010011": "d i s", "000010012": "d ə"}),
    ],
)
def test_speechocean_has_two_selections(tmp_path, name, kept):
    source = eval_corpora.make_speechocean762(tmp_path / "source")
    scores = json.loads((source / "resource/scores.json").read_text())
    fault = {"canonical-phone": "DH", "index": 0, "pronounced-phone": "D"}
    scores["000010012"]["words"][0]["mispronunciations"] = [fault]
    (source / "resource/scores.json").write_text(json.dumps(scores))
    (source / "test/utt2spk").write_text("000010011\t0001\n000010012\t0001\n")
    prepare_eval_set(name, source, tmp_path / "data", tmp_path / "dump")
    assert dict(read_scp(tmp_path / "data/eval" / name / "text.good")) == kept
