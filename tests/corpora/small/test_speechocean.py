"""SpeechOcean762's training part as training speech."""

import eval_corpora
import pytest

from powsm.corpora.evaluation.kaldi_folder import CorpusError
from powsm.corpora.small import speechocean


def test_the_training_part_alone_is_taken_as_it_was_heard(tmp_path):
    source = eval_corpora.make_speechocean762(tmp_path)
    for part, ids in (("train", "000010011"), ("test", "000010012")):
        (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / part / "utt2spk").write_text(f"{ids} 0001\n")
    clips = speechocean.select(source, seed=0).splits["train"]
    assert [(clip.clip_id, clip.language) for clip in clips] == [("000010011", "eng")]
    assert clips[0].ipa == "d i s"
    assert clips[0].read_samples().size == round(clips[0].duration_s * 16_000)


def test_without_the_scores_it_says_so(tmp_path):
    source = eval_corpora.make_speechocean762(tmp_path)
    next(source.rglob("scores.json")).unlink()
    with pytest.raises(CorpusError, match="scores.json"):
        speechocean.select(source, seed=0)
