"""Label files of evaluation corpora as they are found: blanks, BOMs, YAML, stress."""

import pytest
from eval_corpora import make_l2arctic, make_timit, make_tusom2021

from powsm.corpora.evaluation.kaldi_folder import CorpusError
from powsm.corpora.evaluation.l2arctic import prepare_l2arctic
from powsm.corpora.evaluation.speechocean762 import heard
from powsm.corpora.evaluation.timit import prepare_timit
from powsm.corpora.evaluation.tusom2021 import prepare_tusom2021
from powsm.phones.alphabets import to_ipa

BOM = "\ufeff"


def timit(tmp_path):
    root = tmp_path / "timit"
    root.mkdir()
    make_timit(root)
    return root, next(root.rglob("SA1.PHN"))


@pytest.mark.parametrize("tail", ["   \n", "\n\n", "\t\n", " \r\n", " "])
def test_timit_blank_lines_are_no_labels(tmp_path, tail):
    root, labels = timit(tmp_path)
    prepare_timit(root, tmp_path / "out")
    labels.write_text(BOM + labels.read_text() + tail, encoding="utf-8")
    prepare_timit(root, tmp_path / "again")
    for name in ("text.good", "text.asr"):
        again = (tmp_path / "again" / name).read_text(encoding="utf-8")
        assert again == (tmp_path / "out" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("line", ["100 200", "100", "100 200 h# x", "sh", "h#"])
def test_timit_broken_label_is_named(tmp_path, line):
    root, labels = timit(tmp_path)
    labels.write_text(f"{labels.read_text()}{line}\n")
    with pytest.raises(CorpusError, match=r"SA1.PHN:\d+: found .* symbol"):
        prepare_timit(root, tmp_path / "out")


@pytest.mark.parametrize(
    "words",
    [
        "a.wav:\n  no_tones: on\n  tone_letters: x\n",
        "a.wav:\n  no_tones: no\n  tone_letters: x\n",
        "a.wav:\n  no_tones: 12\n  tone_letters: x\n",
        "a.wav:\n  no_tones: [a]\n  tone_letters: x\n",
        "a.wav: on\n",
        "on:\n  no_tones: a\n  tone_letters: a\n",
        "- a\n- b\n",
        "",
        "a: b: c\n",
    ],
)
def test_tusom_that_is_no_text_is_named(tmp_path, words):
    root = tmp_path / "tusom"
    root.mkdir()
    make_tusom2021(root)
    (root / "data/mapping.yml").write_text(words)
    with pytest.raises(CorpusError, match="mapping.yml"):
        prepare_tusom2021(root, tmp_path / "out")


def test_l2arctic_transcript_with_a_byte_order_mark(tmp_path):
    root = tmp_path / "l2"
    root.mkdir()
    make_l2arctic(root)
    words = next(root.rglob("ABA/transcript/arctic_a0001.txt"))
    words.write_text(f"{BOM}The cat.\n", encoding="utf-8")
    prepare_l2arctic(root, tmp_path / "out")
    first = (tmp_path / "out/text.asr").read_text(encoding="utf-8").splitlines()[0]
    assert first.endswith(" The cat.") and BOM not in first


@pytest.mark.parametrize(
    ("phones", "ipa"),
    [
        ("AH0 B AH1 V", "ə b ʌ v"),
        ("S OW1 F AH0", "s o ʊ f ə"),
        ("AH2 P", "ʌ p"),
        ("AH B", "ʌ b"),  # no stress is written
        ("IY0 AH0 IY1", "i ə i"),
    ],
)
def test_stress_decides_ah(phones, ipa):
    assert to_ipa(heard({"phones": phones}), "arpabet") == ipa
