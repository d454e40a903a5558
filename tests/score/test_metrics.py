"""Scores: every rate worked out by hand, PanPhon's and jiwer's values, awkward sets."""

import csv
import json
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import jiwer
import numpy as np
import pytest
from powsm_command import run_verb

from powsm.phones.inventory import feature_table
from powsm.phones.orthography import normalise_text
from powsm.phones.unknown import UnknownSymbolsError
from powsm.score.metrics import (
    lid_confusion,
    score_lid,
    score_phones,
    score_text,
)
from powsm.score.phone_reader import PhoneReader, TranscriptError
from powsm.score.rates import ScoreError

ROOT = Path(__file__).parents[2]

# Five pairs on which the definitions in circulation differ widely. A gap costs as many
# 24ths as features are + or -, plus half the number that are 0: p, a, k 20 + 4/2 = 22,
# t, ʃ, t͡ʃ 21 + 3/2 = 22.5; a gap of the Hamming distance costs 24.
#
#   ref    hyp    edits     feature distance, 24ths         Hamming distance, 24ths
#   pa     ba     1 S       voicing of p: 1                 1
#   -      p      1 I       22                              24
#   kat    -      3 D       22 + 22 + 22.5 = 66.5           72
#   t͡ʃiz   tʃiz   1 S 1 I   t inserted 22.5, ʃ to t͡ʃ        24 + 2 = 26
#                           flips cont and delrel 2: 24.5
#   mama   mama   -         0                               0
#   12 ref        7         114 / 24 = 4.75 phones          123 / 24 = 5.125 phones
REF = {"u1": "pa", "u2": "", "u3": "kat", "u4": "t͡ʃiz", "u5": "mama"}
HYP = {"u1": "ba", "u2": "p", "u3": "", "u4": "tʃiz", "u5": "mama"}


@pytest.fixture(scope="module")
def five():
    return score_phones(hyp=HYP, ref=REF)


def test_five_pairs_counts(five):
    counts = five.counts
    # chance has tests of its own
    assert {name: n for name, n in counts.items() if "chance" not in name} == {
        "n_utts": 5,
        "n_ref": 12,
        "n_hyp": 11,
        "substitutions": 2,
        "deletions": 3,
        "insertions": 2,
        "feature_cost": 228,  # 48ths
        "hamming_cost": 123,  # 24ths
    }
    assert five.columns["feature_cost"].tolist() == [2, 44, 133, 49, 0]
    assert five.columns["hamming_cost"].tolist() == [1, 24, 72, 26, 0]


@pytest.mark.parametrize(
    ("rate", "value"),
    [
        ("PER", 100 * 7 / 12),  # 58.3
        ("PFER", 100 * 4.75 / 12),  # 39.6
        ("FER", 100 * 4.75 / 12),  # another name for it
        ("PFER_hamming", 100 * 5.125 / 12),  # 42.7
        ("mean_hamming", 5.125 / 5),  # 1.025 phones an utterance
    ],
)
def test_five_pairs_rates(five, rate, value):
    assert five.value(rate) == pytest.approx(value, abs=1e-12)


def test_five_pairs_mean_of_rates_is_another_number(five):
    # none for the empty reference; else 1/48, 66.5/72, 24.5/72 and 0: mean 32.1 %
    values = five.utterance_values("PFER")
    assert np.isnan(values[1])
    assert np.nanmean(values) == pytest.approx(100 * (1.5 + 66.5 + 24.5) / 72 / 4)


@pytest.fixture(scope="module")
def panphon():
    from panphon.distance import Distance

    return Distance()


def test_rates_equal_panphon_and_jiwer_on_random_pairs(panphon):
    rng = random.Random(0)
    inventory = [p for p in feature_table().index if not set(p) & set("˩˨˧˦˥")]
    few = rng.sample(inventory, 30)
    ref, hyp = (
        ["".join(rng.choices(few, k=rng.randint(0, 7))) for _ in range(1000)]
        for _ in range(2)
    )
    fed = [panphon.feature_edit_distance(h, r) for h, r in zip(hyp, ref, strict=True)]
    fer = panphon.feature_error_rate(hyp, ref)
    per = panphon.phoneme_error_rate(hyp, ref)
    segments = panphon.fm.ipa_segs
    by_jiwer = jiwer.process_words(
        [" ".join(segments(text)) for text in ref],
        [" ".join(segments(text)) for text in hyp],
    )
    for cleaning in ("prism", "strict"):
        scores = score_phones(hyp=hyp, ref=ref, cleaning=cleaning)
        assert scores.unknown_hyp.n_unknown == scores.unknown_ref.n_unknown == 0
        np.testing.assert_allclose(scores.columns["feature_cost"] / 48, fed, atol=1e-9)
        assert scores.value("PFER") == pytest.approx(100 * fer, abs=1e-9)
        assert scores.value("PER") == pytest.approx(100 * per, abs=1e-9)
        for edit in ("substitutions", "deletions", "insertions"):
            assert scores.counts[edit] == getattr(by_jiwer, edit)


def test_prism_cleaning_segments_like_panphon(panphon):
    rng = random.Random(0)
    # pieces that do and do not belong together: ties and marks on their own, ligatures
    pieces = [*"abɡgt͡ʃʰːʼ̪̃ɹ̩ˈ˥ɚʧǃ ", "nd͡ʒʷ", "ɡ͡b", "a\u0303"]
    for _ in range(300):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 9)))
        clean = unicodedata.normalize("NFD", text.replace(" ", "")).replace("g", "ɡ")
        expected = panphon.fm.ipa_segs(clean)
        assert list(PhoneReader("prism").read(text).phones) == expected, text


def test_text_rates_equal_jiwer_on_random_pairs():
    rng = random.Random(0)
    words = "the a cat sat on mat bat ons".split()
    ref, hyp = (
        [" ".join(rng.choices(words, k=rng.randint(0, 7))) for _ in range(1000)]
        for _ in range(2)
    )
    scores = score_text(hyp=hyp, ref=ref)
    assert scores.value("WER") == pytest.approx(100 * jiwer.wer(ref, hyp), abs=1e-9)
    assert scores.value("CER") == pytest.approx(100 * jiwer.cer(ref, hyp), abs=1e-9)


def test_text_by_hand():
    scores = score_text(
        hyp={"a": "the  cat sit", "b": "你号", "c": ""},
        ref={"a": "a cat sat down", "b": "你 好", "c": "oh no"},
        langs={"a": "eng", "b": "cmn", "c": "eng"},
    )
    # words, the Chinese ones not counted: the -> a, sit -> sat, down; oh no missing
    assert scores.counts["n_words"] == 4 + 2
    assert scores.value("WER") == pytest.approx(100 * (3 + 2) / 6)
    # characters: "the cat sit" to "a cat sat down": t, h go, e -> a, i -> a, " down"
    # comes: 2 I, 2 S, 5 D of 14; 号 for 好 of 2, without the space; "oh no" 5 D of 5
    assert scores.counts["n_chars"] == 14 + 2 + 5
    assert scores.value("CER") == pytest.approx(100 * (9 + 1 + 5) / 21)
    by_lang = scores.by_lang()
    assert np.isnan(by_lang["cmn"].value("WER"))
    assert by_lang["cmn"].value("CER") == 50.0


@pytest.mark.parametrize(
    ("lang", "policy", "ref", "n_words"),
    [
        ("lao", "powsm_fix", "ສະບາຍ ດີ ທຸກ ຄົນ", 0),  # joined by stage 4
        ("lao", "released", "ສະບາຍ ດີ ທຸກ ຄົນ", 4),  # the first recipe has it apart
        ("kor", "powsm_fix", "안녕 하세요", 2),
        ("kor", "released", "안녕 하세요", 0),
        ("yue", "powsm_fix", "你 好的", 0),
        ("yue", "released", "你 好的", 2),
        ("eng", "released", "the cat", 2),
    ],
)
def test_one_wrong_letter_is_no_wrong_sentence(lang, policy, ref, n_words):
    """What stage 4 joins has no words to count; everything else has."""
    text = normalise_text(ref, lang, policy)
    scores = score_text(hyp=[text[:-1]], ref=[text], langs=[lang], text_policy=policy)
    assert scores.counts["n_words"] == n_words
    assert scores.counts["char_deletions"] == 1
    if n_words:
        assert scores.value("WER") == pytest.approx(100 / n_words)
    else:
        assert np.isnan(scores.value("WER"))


# sara am of Thai and Lao, and a word with a tone before it
@pytest.mark.parametrize("policy", ["powsm_fix", "released"])
@pytest.mark.parametrize(
    ("text", "lang"), [("น้ำ", "tha"), ("ทำ", "tha"), ("ນ້ຳ", "lao"), ("ﬁn", "eng")]
)
def test_text_as_others_write_it_equals_its_own_reference(text, lang, policy):
    ref = normalise_text(text, lang, policy)
    scores = score_text(hyp=[text], ref=[ref], langs=[lang], text_policy=policy)
    assert scores.value("CER") == 0.0


def test_unknown_text_policy_is_refused():
    with pytest.raises(ValueError, match="'loose' is not known; use one of powsm_fix"):
        score_text(hyp=["a"], ref=["a"], text_policy="loose")


def test_text_in_another_unicode_form_is_the_same_text():
    scores = score_text(hyp=["cafe\u0301"], ref=["caf\u00e9"])
    assert scores.values == {"WER": 0.0, "CER": 0.0}
    assert scores.counts["n_chars"] == 4


def test_lid_by_hand():
    hyp = {"a": "<eng>", "b": "<deu>", "c": "<unk>", "d": "Dutch"}
    ref = {"a": "eng", "b": "nld", "c": "nld", "d": "nld"}
    scores = score_lid(hyp=hyp, ref=ref)
    assert scores.value("accuracy") == 50.0
    assert scores.by_lang()["nld"].value("accuracy") == pytest.approx(100 / 3)
    confusion = lid_confusion(hyp=hyp, ref=ref)
    assert confusion["nld", "nld"] == 1
    assert confusion["nld", "unk"] == 1


def test_lid_counts_languages_among_the_likeliest():
    scores = score_lid(
        hyp={"a": "<deu>", "b": "<nld>", "c": "<ita>"},
        ref={"a": "deu", "b": "deu", "c": "deu"},
        likeliest={"a": ["<deu>"], "b": ["<nld>", "<deu>"], "c": ["<ita>"]},
    )
    assert scores.value("accuracy") == pytest.approx(100 / 3)
    assert scores.value("top_5") == pytest.approx(200 / 3)


def test_lid_all_right_is_not_certain():
    scores = score_lid(hyp=["eng"] * 20, ref=["eng"] * 20)
    low, high = scores.intervals()["accuracy"]
    assert (round(low, 1), high) == (83.9, 100.0)  # Wilson, n / (n + 1.96^2)


def test_lid_all_among_the_likeliest_is_not_certain_either():
    five = [["deu", "eng"]] * 20
    scores = score_lid(hyp=["deu"] * 20, ref=["eng"] * 20, likeliest=five)
    intervals = scores.intervals()
    assert round(intervals["top_5"].low, 1) == 83.9
    assert round(intervals["accuracy"].high, 1) == 16.1


def test_lid_without_a_language_to_find_is_refused():
    with pytest.raises(ScoreError, match="1 of 2 references name no language, .* b;"):
        score_lid(hyp={"a": "eng", "b": ""}, ref={"a": "eng", "b": " "})


def test_empty_hypotheses_delete_everything():
    scores = score_phones(hyp=["", " "], ref=["pa", "k"])
    assert scores.counts["deletions"] == 3
    assert scores.value("PER") == 100.0
    # a 22 + p 22 + k 22 of 3 x 24
    assert scores.value("PFER") == pytest.approx(100 * 66 / 72)
    assert scores.value("PFER_hamming") == 100.0


def test_only_empty_references_have_no_rate_but_counts():
    scores = score_phones(hyp=["pa", "k"], ref=["", ""])
    assert scores.counts["insertions"] == 3
    assert np.isnan(scores.value("PER"))
    assert scores.value("mean_hamming") == 1.5
    rows = scores.records(set_name="s", task="pr", decode="ctc")
    assert [row["metric"] for row in rows] == ["mean_hamming"]


def test_empty_set_is_an_error():
    for scorer in (score_phones, score_text, score_lid):
        with pytest.raises(ScoreError, match="no utterance"):
            scorer(hyp={}, ref={})


def test_other_utterances_are_an_error_that_names_some():
    with pytest.raises(
        ScoreError, match=r"1 of 2 in hyp alone: c; 1 of 2 in ref alone: b"
    ):
        score_phones(hyp={"a": "p", "c": "p"}, ref={"a": "p", "b": "p"})
    with pytest.raises(ScoreError, match="2 hypotheses for 1 references"):
        score_text(hyp=["a", "b"], ref=["a"])
    with pytest.raises(ScoreError, match="langs lack 1 of 2 utterances: b"):
        score_phones(hyp={"a": "", "b": ""}, ref={"a": "p", "b": "p"}, langs={"a": "x"})


def test_order_of_hypotheses_does_not_matter():
    scores = score_phones(hyp=dict(reversed(HYP.items())), ref=REF)
    assert scores.columns["feature_cost"].tolist() == [2, 44, 133, 49, 0]


def test_unknown_symbols_are_counted_and_shown(caplog):
    scores = score_phones(hyp={"a": "pQaQ", "b": "pa"}, ref={"a": "ˈpa", "b": "pW"})
    assert scores.unknown_hyp.symbols == {"Q": 2}
    assert scores.unknown_ref.symbols == {"W": 1}
    assert scores.unknown_ref.kinds == {"stress": 1, "unknown": 1}
    assert "1 of 2 hypothesis texts hold 2 unknown symbols" in caplog.text
    assert "'Q' (U+0051) 2 times" in caplog.text
    assert "reference texts hold 1" in caplog.text
    caplog.clear()
    score_phones(hyp=["ˈpa"], ref=["pa"])
    assert "texts hold" not in caplog.text


@pytest.mark.parametrize(
    ("hyp", "ref", "side"),
    [
        ("k{tQ", "kat", "hypotheses: 50.00%"),
        ("/k//{//t//Q/", "kat", "hypotheses: 50.00%"),  # nor are slashes
        ("/k//a//t/", "k@t", "references: 33.33%"),
        ("ka", "ˈka¤ ta", "references: 16.67%"),  # the space is not counted
        ("中", "ka", "hypotheses: 100.00%"),
        ("ka", "Kat", "references: 33.33%"),
    ],
)
def test_too_many_unknown_symbols_of_one_side_are_refused(hyp, ref, side):
    with pytest.raises(UnknownSymbolsError, match=side):
        score_phones(hyp=[hyp], ref=[ref], max_unknown_rate=0.16)
    score_phones(hyp=[hyp], ref=[ref], max_unknown_rate=1.0)
    score_phones(hyp=[hyp], ref=[ref], max_unknown_rate=0.16, cleaning="prism")


def test_losses_are_counted_by_kind_for_prism_too():
    scores = score_phones(hyp=["/ˈk/?"], ref=["ˈwɔtɚ|"], cleaning="prism")
    assert scores.unknown_hyp.kinds == {"stress": 1, "punctuation": 1}
    assert scores.unknown_ref.kinds == {"stress": 1, "unknown": 1, "punctuation": 1}


def test_phone_map_is_for_references_and_names_the_utterance():
    scores = score_phones(hyp=["ʃi"], ref=["h# sh iy h#"], phone_map="timit")
    assert scores.value("PER") == 0.0
    with pytest.raises(TranscriptError, match="reference a: xx not in phone map"):
        score_phones(hyp={"a": "p"}, ref={"a": "xx"}, phone_map="timit")


def test_import_and_scoring_need_no_torch():
    program = (
        "import sys; from powsm.score.metrics import score_phones;"
        "score_phones(hyp=['pa'], ref=['ba']);"
        "print({'torch', 'pandas', 'panphon'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "set()\n", done.stderr


@pytest.fixture
def files(tmp_path):
    hyp, ref = tmp_path / "hyp.jsonl", tmp_path / "ref"
    rows = [json.dumps({"utt_id": u, "text": t}) for u, t in HYP.items()]
    hyp.write_text("\n".join(rows))
    ref.write_text("".join(f"{u} {t}\n" for u, t in REF.items()), encoding="utf-8")
    return hyp, ref


def test_score_verb_writes_json(files, capsys):
    hyp, ref = files
    run_verb("score", "--hyp", hyp, "--ref", ref, "--format", "json")
    result = json.loads(capsys.readouterr().out)
    values = {row["metric"]: row["value"] for row in result["records"]}
    assert values["PFER"] == pytest.approx(100 * 4.75 / 12)
    assert result["counts"]["pr"]["feature_cost"] == 228


def test_score_verb_shows_losses_by_kind_and_side(tmp_path, capsys):
    hyp, ref = tmp_path / "hyp", tmp_path / "ref"
    hyp.write_text("a ˈkat.\nb ta\n", encoding="utf-8")
    ref.write_text("a kat\nb taQ\n", encoding="utf-8")
    verb = ("score", "--hyp", hyp, "--ref", ref)
    with pytest.raises(SystemExit, match="references: 16.67%.*--max_unknown"):
        run_verb(*verb)
    run_verb(*verb, "--max_unknown_rate", "0.2")
    lines = capsys.readouterr().out.splitlines()
    assert "hyp: 7 characters, in no phone: break=1 stress=1" in lines
    assert "ref: 6 characters, in no phone: unknown=1" in lines
    run_verb(*verb, "--max_unknown_rate", "0.2", "--format", "json")
    losses = json.loads(capsys.readouterr().out)["left_out"]["pr"]
    assert losses == {"hyp": {"stress": 1, "break": 1}, "ref": {"unknown": 1}}


def test_score_verb_prints_a_table_of_what_is_asked_for(files, capsys):
    hyp, ref = files
    run_verb("score", "--hyp", hyp, "--ref", ref, "--metric", "FER", "CER")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["all", "FER", "39.58"]
    assert lines[2].split()[:2] == ["all", "CER"]


def test_score_verb_reads_both_sides_from_one_table(tmp_path, capsys):
    table = tmp_path / "both.CSV"
    table.write_text("id,hyp,ref,spk\nu1,bat,pat,a\nu2,o,a,b\nu3,ta,ta,b\n")
    by = tmp_path / "utt2spk"
    by.write_text("u1 a\nu2 b\nu3 b\n")
    run_verb(*("score", "--hyp", table, "--ref", table, "--by", by, "--metric", "PER"))
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert lines[1:4] == [
        ["all", "PER", "33.33"],
        ["a", "PER", "33.33"],
        ["b", "PER", "33.33"],
    ]
    fields = ("--hyp_field", "ref", "--ref_field", "hyp", "--metric", "PER")
    run_verb("score", "--hyp", table, "--ref", table, *fields, "--format", "json")
    result = json.loads(capsys.readouterr().out)
    assert result["counts"]["pr"]["substitutions"] == 2


def test_score_verb_says_when_a_rate_has_no_value(tmp_path, caplog, capsys):
    hyp, ref = tmp_path / "hyp", tmp_path / "ref"
    hyp.write_text("u1 pa\n")
    ref.write_text("u1\n")
    run_verb("score", "--hyp", hyp, "--ref", ref, "--metric", "PER")
    assert "PER has no value: nothing to divide by" in caplog.text
    assert "insertions=2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("hyp", "ref", "message"),
    [
        ("bat", "pat", "found one text; give a list"),
        ("bat", ["b", "a", "t"], "found one text; give a list"),
        ([["p", "a"]], ["pa"], r"hyp of 0: found \['p', 'a'\], expected text"),
        ({"u": "pa"}, {"u": None}, "ref of u: found None"),
    ],
)
def test_what_is_no_text_is_named(hyp, ref, message):
    for scorer in (score_phones, score_text, score_lid):
        with pytest.raises(ScoreError, match=message):
            scorer(hyp=hyp, ref=ref)


def test_any_sequence_of_texts_is_scored():
    refs = np.array(["pat", "ta"])
    scores = score_phones(hyp=(text for text in ("bat", "ta")), ref=refs)
    assert scores.value("PER") == 20.0


def test_likeliest_languages_may_be_a_list():
    scores = score_lid(hyp=["eng"], ref=["deu"], likeliest=[["eng", "deu"]])
    assert scores.value("top_5") == 100.0
    with pytest.raises(ScoreError, match="likeliest lack 1 of 1 utterances: a"):
        score_lid(hyp={"a": "eng"}, ref={"a": "deu"}, likeliest={})


@pytest.mark.parametrize("option", ["langs", "by", "utt2spk"])
def test_score_verb_refuses_an_empty_label(files, option):
    hyp, ref = files
    labels = ref.with_name("labels")
    labels.write_text("".join(f"{u}\n" for u in REF))
    with pytest.raises(SystemExit, match=r"^powsm score: error: \w+ lack \d of \d .*$"):
        run_verb("score", "--hyp", hyp, "--ref", ref, f"--{option}", labels)


def test_score_verb_fails_in_one_line(files):
    hyp, ref = files
    ref.write_text("u1 pa\n")
    told = r"^powsm score: error: not the same utterances.*$"
    with pytest.raises(SystemExit, match=told):
        run_verb("score", "--hyp", hyp, "--ref", ref)


def test_score_exp(tmp_path):
    """Four tasks and languages of one set, references at utterance level."""
    dump, exp = tmp_path / "dump" / "test_x", tmp_path / "exp"
    dump.mkdir(parents=True)
    examples = [f"{u}_{t}" for u in ("a_1_eng", "b_2_deu") for t in ("asr", "pr")]
    langs = "".join(f"{e} {e.split('_')[2]}\n" for e in examples)
    for name, content in {
        "ref.ipa": "a_1_eng /p//a/\nb_2_deu /d//a/\n",
        "ref.text": "a_1_eng pa\nb_2_deu da da\n",
        "utt2lang": langs,
        "utt2spk": "".join(f"{e} s1\n" for e in examples),
        "utt2num_samples": "".join(f"{e} 48000\n" for e in examples),
        "normaliser.json": json.dumps(
            {"policy": "strict", "text_policy": "powsm_fix", "version": "strict/2"}
        ),
    }.items():
        (dump / name).write_text(content)
    for tag, texts in {
        "pr_ctc": ("/b//a/", "/d//a/"),
        "asr_joint": ("pa", "da do"),
        "lid": ("<eng>", "<eng>"),
    }.items():
        folder = exp / "mini" / "test_x" / tag
        folder.mkdir(parents=True)
        rows = zip(("a_1_eng", "b_2_deu"), texts, strict=True)
        (folder / "hyp.jsonl").write_text(
            "\n".join(json.dumps({"utt_id": u, "text": t}) for u, t in rows)
        )
    run_verb("score-exp", "--exp", exp, "--dump", dump.parent)
    records = json.loads((exp / "results.json").read_text())
    values = {
        (r["task"], r["decode"], r["metric"], r["lang"]): r["value"] for r in records
    }
    assert values["pr", "ctc", "PER", "all"] == 25.0  # one of four phones
    assert values["pr", "ctc", "PFER", "eng"] == pytest.approx(100 / 24 / 2)
    assert values["asr", "joint", "WER", "all"] == pytest.approx(100 / 3)
    assert values["lid", "attention", "accuracy", "deu"] == 0.0
    with open(exp / "results_by.csv") as file:
        parts = {
            (r["task"], r["by"], r["label"], r["metric"]): r
            for r in csv.DictReader(file)
        }
    assert float(parts["pr", "corpus", "a", "PER"]["value"]) == 50.0
    assert float(parts["pr", "speaker", "s1", "PER"]["value"]) == 25.0
    assert float(parts["asr", "duration", "02-05 s", "WER"]["value"]) == pytest.approx(
        100 / 3
    )
    assert set(records[0]) == {
        "set", "lang", "task", "decode", "metric", "value", "low", "high", "n_utts",
        "n_units", "profile", "cleaning", "unit",
    }  # fmt: skip
