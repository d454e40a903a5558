"""Statistics of stage 10: those of ESPnet's own collection, from a seeded sample."""

import numpy as np
import pytest
import torch
from dump_builder import make_dump
from espnet2.layers.global_mvn import GlobalMVN
from espnet2.tasks.s2t import S2TTask
from tiny_model import SETTINGS, make_args, make_tokens

from powsm.prepare.index import ExampleIndex
from powsm.settings import ConfigError
from powsm.train.stats import collect, find_stats, sample_by_language, stats_file


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
    hours = index.n_samples.sum() / 16000 / 3600 / 4
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


def test_published_window_is_what_espnets_stage_10_pads_to(folder, tmp_path):
    tokens = make_tokens(folder, tmp_path / "tokens")
    second = SETTINGS["preprocessor_conf"] | {"speech_length": 1}
    args = make_args(
        tokens, tmp_path / "exp", stats_window="published", preprocessor_conf=second
    )
    stats = collect(args, folder, tmp_path / "stats.npz", hours=100, seed=0)
    # 41 clips of 0.6 to 1.0 s, 101 frames each once they last a second
    assert int(stats["count"]) == 41 * 101
    espnet = S2TTask.build_preprocess_fn(args, train=False)
    index = ExampleIndex(folder)
    frontend = S2TTask.build_model(args).frontend
    total = 0.0
    for utt in range(len(index)):
        padded, _ = espnet._pad_or_trim_speech({"speech": index.speech(utt)})
        speech = torch.from_numpy(padded["speech"].T)
        feats, _ = frontend(speech, torch.tensor([speech.size(1)]))
        total = total + feats[0].double().sum(0)
    np.testing.assert_allclose(stats["sum"], total, rtol=1e-6)
    # silence is log(1e-10) in every band: the mean moves towards -23
    own = collect(
        make_args(tokens, tmp_path / "own"), folder, tmp_path / "o.npz", hours=9, seed=0
    )
    assert (stats["sum"] / stats["count"] < own["sum"] / own["count"]).all()


def test_statistics_say_of_which_clips_they_are_and_do_not_mix(folder, tmp_path):
    tokens = make_tokens(folder, tmp_path / "tokens")
    settings = {
        **{"normalize": "global_mvn", "stats_window": "published"},
        **{"frontend_conf": SETTINGS["frontend_conf"]},
        **{"preprocessor_conf": {"speech_length": 1}},
    }
    for window in ("own", "published"):
        args = make_args(tokens, tmp_path / "e", preprocessor_conf={"speech_length": 1},
                         stats_window=window)  # fmt: skip
        collect(args, folder, stats_file(tmp_path, window), hours=0.001, seed=0)
    own, padded = (stats_file(tmp_path, w) for w in ("own", "published"))
    assert find_stats(tmp_path, settings) == find_stats(padded, settings) == padded
    assert find_stats(tmp_path, settings | {"stats_window": "own"}) == own
    assert find_stats(tmp_path, {"normalize": None}) is None
    with pytest.raises(ConfigError, match="stats_window own, but .* published"):
        find_stats(own, settings)
    with pytest.raises(ConfigError, match="no statistics .* run stage 10"):
        find_stats(tmp_path / "elsewhere", settings)
    # ESPnet's own file does not say of which clips it is
    np.savez(tmp_path / "espnet.npz", count=1, sum=[0.0], sum_square=[1.0])
    assert find_stats(tmp_path / "espnet.npz", settings) == tmp_path / "espnet.npz"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"hop_length": 320}, "frontend_conf.hop_length 160, but .* say 320"),
        ({"n_mels": 40}, "frontend_conf.n_mels 80, but .* say 40"),
        ({"fmin": 100}, "frontend_conf.fmin None, but .* say 100"),
        ({"fs": "16k", "n_mels": 80}, None),  # as they are
    ],
)
def test_statistics_of_other_features_are_refused(folder, tmp_path, changes, fault):
    tokens = make_tokens(folder, tmp_path / "tokens")
    collect(make_args(tokens, tmp_path), folder, tmp_path / "s.npz", hours=9, seed=0)
    settings = {"frontend_conf": SETTINGS["frontend_conf"] | changes}
    settings["normalize"] = "global_mvn"
    if fault is None:
        assert find_stats(tmp_path / "s.npz", settings) == tmp_path / "s.npz"
        return
    with pytest.raises(ConfigError, match=fault):
        find_stats(tmp_path / "s.npz", settings)


def test_length_of_padding_is_compared(folder, tmp_path):
    tokens = make_tokens(folder, tmp_path / "tokens")
    settings = {"normalize": "global_mvn", "stats_window": "published"}
    settings["frontend_conf"] = SETTINGS["frontend_conf"]
    padded = {"stats_window": "published", "preprocessor_conf": {"speech_length": 1}}
    args = make_args(tokens, tmp_path, **padded)
    collect(args, folder, tmp_path / "s.npz", hours=0.001, seed=0)
    with pytest.raises(ConfigError, match="speech_length 1, but .* say 2"):
        find_stats(
            tmp_path / "s.npz", settings | {"preprocessor_conf": {"speech_length": 2}}
        )


def test_what_a_killed_run_was_writing_is_removed(folder, tmp_path):
    out = tmp_path / "feats_stats.npz"
    left, others = (tmp_path / f".{name}.x.new" for name in (out.name, "a.json"))
    left.touch()
    others.touch()
    args = make_args(make_tokens(folder, tmp_path / "tokens"), tmp_path / "exp")
    collect(args, folder, out, hours=100, seed=0)
    assert out.exists() and not left.exists() and others.exists()


def test_padding_needs_a_length(folder, tmp_path):
    tokens = make_tokens(folder, tmp_path / "tokens")
    args = make_args(tokens, tmp_path / "exp", stats_window="published")
    args.preprocessor_conf = {}
    with pytest.raises(ConfigError, match="speech_length, which is not set"):
        collect(args, folder, tmp_path / "stats.npz", hours=1, seed=0)
