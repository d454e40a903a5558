"""Statistics of stage 10: those of ESPnet's own collection, from a seeded sample."""

import numpy as np
import pytest
import torch
from dump_builder import make_dump
from espnet2.layers.global_mvn import GlobalMVN
from espnet2.tasks.s2t import S2TTask
from tiny_model import make_args, make_tokens

from powsm.prepare.index import ExampleIndex
from powsm.train.stats import collect, sample_by_language


@pytest.fixture
def folder(tmp_path):
    """Four languages, of which the last has one utterance of 41."""
    langs = ("eng", "ita", "eng", "nan") * 10 + ("kat",)
    return make_dump(
        tmp_path / "train", [0.6 + 0.01 * n for n in range(41)], langs=langs
    )


def count_by_lang(index, utts):
    langs = [index.utt_id(int(u))[-3:] for u in utts]
    return {lang: langs.count(lang) for lang in set(langs)}


def test_sample_has_each_language_by_its_share_and_depends_on_the_seed(folder):
    index = ExampleIndex(folder)
    hours = index.num_samples.sum() / 16000 / 3600 / 4
    utts = sample_by_language(index, hours, seed=1)
    counts = count_by_lang(index, utts)
    assert counts["kat"] == 1
    assert counts["eng"] in (5, 6) and counts["ita"] in (2, 3, 4)
    assert sorted(set(utts)) == utts.tolist()
    again, other = (sample_by_language(index, hours, seed) for seed in (1, 2))
    assert again.tolist() == utts.tolist() != other.tolist()


def test_more_hours_than_there_are_take_everything(folder):
    index = ExampleIndex(folder)
    assert sample_by_language(index, 100.0, seed=0).tolist() == list(range(41))


def test_file_holds_what_espnet_collects_and_its_normaliser_reads(folder, tmp_path):
    tokens = make_tokens(folder, tmp_path / "tokens")
    args = make_args(tokens, tmp_path / "exp")
    out = tmp_path / "feats_stats.npz"
    collect(args, folder, out, hours=100, seed=0)
    model = S2TTask.build_model(make_args(tokens, tmp_path / "exp", model="espnet"))
    feats = []
    index = ExampleIndex(folder)
    for utt in range(len(index)):
        speech = torch.from_numpy(index.speech(utt))[None]
        batch = {"speech": speech, "speech_lengths": torch.tensor([speech.size(1)])}
        for name in ("text", "text_prev", "text_ctc"):
            batch[name] = torch.zeros(1, 1, dtype=torch.long)
            batch[f"{name}_lengths"] = torch.ones(1, dtype=torch.long)
        found = model.collect_feats(**batch)
        feats.append(found["feats"][0, : int(found["feats_lengths"][0])])
    feats = torch.cat(feats).double()
    stats = np.load(out)
    assert int(stats["count"]) == len(feats)
    np.testing.assert_allclose(stats["sum"], feats.sum(0), rtol=1e-6)
    np.testing.assert_allclose(stats["sum_square"], feats.square().sum(0), rtol=1e-6)
    normalised, _ = GlobalMVN(out)(feats[None].float())
    assert abs(float(normalised.mean())) < 1e-3
    assert float(normalised.std()) == pytest.approx(1, abs=0.02)
