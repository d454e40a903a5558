"""Label files of evaluation corpora as they are found: blanks, BOMs, YAML, stress."""

import pytest
from eval_corpora import (
    make_buckeye,
    make_drc_se,
    make_l2arctic,
    make_speechocean762,
    make_timit,
    make_tusom2021,
    make_voxangeles,
)

from powsm.corpora.evaluation.buckeye import prepare_buckeye
from powsm.corpora.evaluation.drc_se import prepare_drc_se
from powsm.corpora.evaluation.kaldi_folder import CorpusError
from powsm.corpora.evaluation.l2arctic import prepare_l2arctic
from powsm.corpora.evaluation.speechocean762 import heard, prepare_speechocean762
from powsm.corpora.evaluation.timit import prepare_timit
from powsm.corpora.evaluation.tusom2021 import prepare_tusom2021
from powsm.corpora.evaluation.voxangeles import prepare_voxangeles
from powsm.errors import PowsmError
from powsm.phones.alphabets import to_ipa

BOM = "\ufeff"


# how each corpus writes text, and the files that hold it
READERS = {
    "timit": (make_timit, prepare_timit, "*.PHN"),
    "timit words": (make_timit, prepare_timit, "*.TXT"),
    "buckeye": (make_buckeye, prepare_buckeye, "*.phones"),
    "buckeye words": (make_buckeye, prepare_buckeye, "*.words"),
    "l2arctic words": (make_l2arctic, prepare_l2arctic, "*.txt"),
    "drc_se": (make_drc_se, prepare_drc_se, "*.csv"),
    "speechocean762": (make_speechocean762, prepare_speechocean762, "scores.json"),
    "tusom2021": (make_tusom2021, prepare_tusom2021, "mapping.yml"),
    "voxangeles": (make_voxangeles, prepare_voxangeles, "*.tsv"),
}


@pytest.mark.parametrize("corpus", READERS)
def test_byte_order_marks_change_nothing(tmp_path, corpus):
    make, prepare, pattern = READERS[corpus]
    root = tmp_path / "corpus"
    root.mkdir()
    make(root)
    prepare(root, tmp_path / "out", allow_incomplete=True)
    for path in root.rglob(pattern):
        path.write_bytes(BOM.encode() + path.read_bytes())
    prepare(root, tmp_path / "again", allow_incomplete=True)
    for name in ("text.good", "text.raw", "text.asr"):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("corpus", READERS)
def test_utf16_is_named(tmp_path, corpus):
    make, prepare, pattern = READERS[corpus]
    root = tmp_path / "corpus"
    root.mkdir()
    make(root)
    for path in root.rglob(pattern):
        path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    with pytest.raises(PowsmError, match=f"{path.suffix}: UTF-16 text"):
        prepare(root, tmp_path / "out")


@pytest.mark.parametrize(
    ("corpus", "content", "fault"),
    [
        ("drc_se", "file,ref\na,b\n", "_ph.csv: no column speaker wd_ID"),
        ("drc_se", "", "_ph.csv: no column file .*; found none"),
        (
            "drc_se",
            "file,ref,speaker,wd_ID,wd,ph,start,end\n"
            'a,1,EN01,w1,"the,p,0,1\na,1,EN01,w2,"cat,p,1,2\n',
            "_ph.csv:3: a line break in a field; close the quotation mark",
        ),
        (
            "drc_se",
            "file,ref,speaker,wd_ID,wd,ph,start,end\n"
            + "mc_english_kent01,1,EN01,w1,the,p,0,1\n" * 11
            + "mc_english_kent01,1,EN01,w1,the,p,1",
            "_ph.csv: mc_english_kent01-1: could not convert .*; is the table cut off?",
        ),
        ("voxangeles", "lang\tfile\n", ".tsv: no column raw updated; found lang"),
        ("speechocean762", "{", "scores.json: not JSON"),
        ("speechocean762", "[]", "scores.json: no scores by utterance"),
        ("buckeye", "#\n0.1 122 hh\nx 122 ay\n", "phones:3: found 'x 122 ay'"),
    ],
)
def test_broken_tables_are_named(tmp_path, corpus, content, fault):
    make, prepare, pattern = READERS[corpus]
    root = tmp_path / "corpus"
    root.mkdir()
    make(root)
    next(root.rglob(pattern)).write_text(content)
    with pytest.raises(CorpusError, match=fault):
        prepare(root, tmp_path / "out")


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


@pytest.mark.parametrize("word", ["on", "no", "12", "true", "null", "1e3", "y"])
def test_tusom_words_that_yaml_takes_for_other_things(tmp_path, word):
    root = tmp_path / "tusom"
    root.mkdir()
    make_tusom2021(root)
    (root / "data/mapping.yml").write_text(
        f"{BOM}animals1-10.wav:\n  no_tones: {word}\n  tone_letters: {word}\n",
        encoding="utf-8",
    )
    prepare_tusom2021(root, tmp_path / "out")
    assert (tmp_path / "out/text.good").read_text() == f"animals1-10 {word}\n"


@pytest.mark.parametrize(
    "words",
    [
        "a.wav:\n  no_tones: [a]\n  tone_letters: x\n",
        "a.wav: on\n",
        "a.wav:\n",
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
    with pytest.raises(PowsmError, match="mapping.yml"):
        prepare_tusom2021(root, tmp_path / "out")


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
