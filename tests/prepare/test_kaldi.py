"""`data/` and `dump/raw/` are data directories to Kaldi."""

import pytest
from datadir_builder import make_data_dir
from eval_corpora import make_timit
from kaldi_rules import kaldi_faults
from shar_builder import make_cut, write_shard

from powsm.corpora.evaluation.part import write_part
from powsm.corpora.evaluation.sets import prepare_eval_set
from powsm.corpora.shar import find_shards
from powsm.files.datadir import read_scp, validate
from powsm.prepare.dump import Settings, prepare_set
from powsm.prepare.merge import merge_parts
from powsm.prepare.shards import make_parts

# as byte order has it: "1" < "A" < "a", and "s1" before "s10" before "s1-"
SPEAKERS = ("s10", "s1", "s1-", "S2", "é", "a b", "s1")
# no-break space, line separator, Unicode and control characters
TEXTS = ("a\u00a0b", "a\u2028b", "a\r\nb", "a\x07b", "a\u3000b\u0085c", "", "<b> #1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A set of each stage, speakers in another order than utterances."""
    root = tmp_path_factory.mktemp("kaldi")
    cuts = [
        make_cut(f"{7 - number}x", n_samples=32_000, speaker=speaker, text=text)
        for number, (speaker, text) in enumerate(zip(SPEAKERS, TEXTS, strict=True))
    ]
    write_shard(root / "downloads/fleurs_shar/en_us-train", cuts)
    merge_parts(
        make_parts(find_shards(root / "downloads"), root / "data"), root / "data"
    )
    (data,) = (path.parent for path in (root / "data").glob("*/utt2spk"))
    prepare_set(data, root / "dump/train", Settings())
    prepare_eval_set("test_timit", make_timit(root), root / "data", root / "dump")
    write_part(root / "dump/test_timit", root / "dump/test_part", {"eng"})
    return {
        "stage 1": data,
        "stage 4": root / "dump/train",
        "evaluation": root / "dump/test_timit",
        "languages": root / "dump/test_part",
    }


@pytest.mark.parametrize("which", ["stage 1", "stage 4", "evaluation", "languages"])
def test_kaldi_takes_every_set(folders, which):
    assert kaldi_faults(folders[which]) == []


def test_speakers_are_kept(folders):
    speakers = dict(read_scp(folders["stage 1"] / "utt2speaker"))
    assert speakers["fleurs_7x_eng"] == "fleurs_s10"
    assert speakers["fleurs_5x_eng"] == "fleurs_s1-"
    assert validate(folders["stage 1"]).n_speakers == len(set(SPEAKERS))


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("utt2spk", "a_eng s2\nb_eng s1\n", "another order by speaker"),
        ("spk2utt", "a_eng b_eng\nb_eng a_eng\n", "turned round"),
        ("text", "a_eng <s> x\nb_eng y\n", "<s>"),
        ("text", "a_eng x\u00a0y\nb_eng y\n", "xa0"),
        ("wav.scp", "a_eng ~/a\nb_eng b\n", "~"),
        ("utt2lang", "b_eng eng\na_eng eng\n", "not sorted"),
    ],
)
def test_rules_see_what_they_are_for(tmp_path, name, content, fault):
    folder = make_data_dir(tmp_path, {"a_eng": {}, "b_eng": {}})
    assert kaldi_faults(folder) == []
    (folder / name).write_text(content, encoding="utf-8")
    assert any(fault in found for found in kaldi_faults(folder))
