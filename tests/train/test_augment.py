"""Augmentation: what it does to a recording, the same bytes always, or nothing."""

import logging

import numpy as np
import pytest
import soundfile
import torch
from dump_builder import make_dump
from tiny_model import make_args, make_corpus

from powsm.audio import SAMPLE_RATE, n_encoder_frames
from powsm.prepare.index import ExampleIndex
from powsm.settings import ConfigError
from powsm.train.augment import apply
from powsm.train.augment.apply import Augmenter, at_speed
from powsm.train.augment.noise import NoiseFolder, pink, white
from powsm.train.augment.settings import Augment, faults
from powsm.train.batches.options import BatchOptions
from powsm.train.batches.plan import Key, plan_pass
from powsm.train.dataset import TOO_FAST, UtteranceDataset, collate
from powsm.train.loader import UtteranceLoader
from powsm.train.run import train

EVERYTHING = {
    "speed": [0.9, 1.1],
    "noise": {"colours": ["white", "pink"], "snr_db": [5, 15], "prob": 0.6},
    "reverb": {"prob": 0.3},
}


def encode(example):
    return {k: np.array([ord(c) for c in v], np.int64) for k, v in example.items()}


def made(conf, folder, seed=3, encode=encode):
    augment = Augmenter(Augment.of(conf), seed)
    return UtteranceDataset(ExampleIndex(folder), encode, augment=augment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    durations = [0.9 + 0.1 * (n % 5) for n in range(12)]
    return make_dump(tmp_path_factory.mktemp("dump") / "train", durations)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """Few of them, each in half a second."""
    patch = pytest.MonkeyPatch()
    patch.setattr(apply, "_N_ROOMS", 2)
    yield
    patch.undo()


def bytes_of(dataset, **kwargs):
    """Every utterance of two passes with the samples that are learned from."""
    options = BatchOptions(batch_seconds=4, update_batches=2)
    loader = UtteranceLoader(dataset, options, updates_per_epoch=6, **kwargs)
    return [
        [
            (utt_id, speech[:n].numpy().tobytes())
            for utt_id, speech, n in zip(
                batch.utt_ids, batch.speech, batch.speech_lengths, strict=True
            )
        ]
        for batch in loader
    ]


def test_same_bytes_for_any_ranks_workers_threads_and_after_a_break(folder, rooms):
    dataset = made(EVERYTHING, folder)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        alone = bytes_of(dataset)
    finally:
        torch.set_num_threads(threads)
    apply._response.cache_clear()
    assert bytes_of(dataset, num_workers=1) == alone
    ranks = [bytes_of(dataset, rank=rank, world_size=2) for rank in range(2)]
    assert [x for pair in zip(*ranks, strict=True) for x in pair] == alone
    assert bytes_of(dataset, first_step=5) == alone[5:]


def test_each_pass_and_each_seed_draw_anew(folder):
    conf = {"noise": {"colours": ["white"], "prob": 1.0}}
    (one,), (two,) = (
        [dataset[Key(0, 0, 0, draw=(n, 0))]["speech"]]
        for dataset, n in ((made(conf, folder), 0), (made(conf, folder), 1))
    )
    other_seed = made(conf, folder, seed=4)[Key(0, 0, 0, draw=(0, 0))]["speech"]
    again = made(conf, folder)[Key(0, 0, 0, draw=(0, 1))]["speech"]  # in the same pass
    assert len({x.tobytes() for x in (one, two, other_seed, again)}) == 4


def test_an_utterance_that_comes_twice_in_a_pass_is_numbered():
    lengths = np.full(30, SAMPLE_RATE)
    langs = np.repeat([0, 1], [28, 2])
    options = BatchOptions(batch_seconds=100, language_temperature=5.0)
    plan = plan_pass(lengths, options, 4, langs, speeds=())
    keys = [key for b in range(len(plan)) for key in plan.batch(b)]
    assert len({(key.utt, key.draw) for key in keys}) == len(keys) > 20
    assert {key.draw[0] for key in keys} == {4}
    assert max(key.draw[1] for key in keys if key.utt >= 28) > 1


def test_speed_changes_length_and_pitch_and_batches_keep_to_their_limit(folder):
    dataset = made({"speed": [0.8, 1.25]}, folder)
    lengths = dataset.index.n_samples
    plan = dataset.plan(BatchOptions(batch_seconds=4), 0)
    speeds = set()
    for b in range(len(plan)):
        batch = plan.batch(b)
        assert max(key.total for key in batch) * len(batch) <= 4 * SAMPLE_RATE
        for key in batch:
            rate = key.speed * SAMPLE_RATE
            assert key.total == -(-lengths[key.utt] * SAMPLE_RATE // rate)
            item = dataset[key]
            assert item["speech"].size == key.total
            assert item["done"] == ([f"speed {key.speed:g}"] if key.speed != 1 else [])
            speeds.add(key.speed)
    assert speeds == {1.0, 0.8, 1.25}
    tone = np.sin(2 * np.pi * 400 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    faster = at_speed(tone.astype(np.float32), 1.25)
    pitch = np.abs(np.fft.rfft(faster)).argmax() * SAMPLE_RATE / faster.size
    assert faster.size == 12_800 and pitch == pytest.approx(500)


def test_all_tasks_of_a_recording_share_what_became_of_it(folder):
    plain = UtteranceDataset(ExampleIndex(folder), encode)
    keys = made(EVERYTHING | {"reverb": None}, folder).plan(BatchOptions(), 0).batch(0)
    augmented = collate([made({"speed": [0.9]}, folder)[key] for key in keys])
    batch = collate([plain[key[:3]] for key in keys])
    assert augmented.n_recordings == len(keys) and augmented.n_examples == 4 * len(keys)
    for name in ("text", "text_prev", "text_ctc", "example_audio"):
        assert torch.equal(getattr(augmented, name), getattr(batch, name))


def test_too_fast_for_its_phones_stays_as_it_is(tmp_path):
    """A CTC target that has no frames left would teach nothing."""
    folder = make_dump(tmp_path / "train", [1.0])
    frames = n_encoder_frames(SAMPLE_RATE)

    def many(example):
        return encode(example) | {"text_ctc": np.arange(frames - 2, dtype=np.int64)}

    dataset = made({"speed": [0.9, 1.5]}, folder, encode=many)
    fast = dataset[Key(0, 10_667, 0, 1.5, (0, 0))]
    assert fast["done"] == [TOO_FAST] and fast["speech"].size == SAMPLE_RATE
    slow = dataset[Key(0, 17_778, 0, 0.9, (0, 0))]
    assert slow["done"] == ["speed 0.9"] and slow["speech"].size == 17_778
    plan = dataset.plan
    with pytest.raises(ValueError, match="has 1.1 s at speed 0.9; raise batch_seconds"):
        plan(BatchOptions(batch_seconds=1.05), 0)


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_noise_is_as_far_below_as_asked(folder, colour):
    conf = {"noise": {"colours": [colour], "snr_db": [12, 12], "prob": 1.0}}
    speech = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    noisy, done = Augmenter(Augment.of(conf), 0)(speech, "a_b_eng", (0, 0))
    ratio = np.square(speech).sum() / np.square(noisy - speech).sum()
    assert done == ["noise"] and noisy.dtype == np.float32
    assert 10 * np.log10(ratio) == pytest.approx(12, abs=0.01)
    silence = np.zeros(800, np.float32)
    assert not Augmenter(Augment.of(conf), 0)(silence, "a_b_eng", (0, 0))[0].any()


def test_pink_noise_has_as_much_power_in_every_octave():
    def octaves(noise):
        power = np.abs(np.fft.rfft(noise)) ** 2
        return np.array([power[2**n : 2 ** (n + 1)].sum() for n in range(9, 14)])

    rng = np.random.default_rng(0)
    falls = octaves(pink(1 << 15, rng))
    assert falls / falls.mean() == pytest.approx(np.ones(5), abs=0.15)
    rises = octaves(white(1 << 15, rng))
    assert rises[1:] / rises[:-1] == pytest.approx(np.full(4, 2), abs=0.3)


def test_noise_of_a_folder_is_cut_repeated_mixed_and_resampled(tmp_path):
    tone = np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "stereo 8 kHz.wav"
    soundfile.write(path, np.stack([tone, 0 * tone], axis=1), 8000)
    (tmp_path / "notes.txt").write_text("no recording")
    noise = NoiseFolder(tmp_path)
    short = noise(4000, np.random.default_rng(0))
    assert short.size == 4000
    assert np.abs(short[500:-500]).max() == pytest.approx(0.5, abs=0.02)
    pitch = np.abs(np.fft.rfft(short)).argmax() * SAMPLE_RATE / 4000
    assert pitch == pytest.approx(1000)
    begins = {noise(100, np.random.default_rng(n)).tobytes() for n in range(8)}
    assert len(begins) > 1
    assert noise(20_000, np.random.default_rng(0)).size == 20_000  # 1.25 s of 0.5
    soundfile.write(path, np.full(4000, np.nan), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match="stereo 8 kHz.wav: holds NaN"):
        noise(100, np.random.default_rng(0))


def test_silent_noise_changes_nothing(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(1000), SAMPLE_RATE)
    conf = {"noise": {"folder": str(tmp_path), "prob": 1.0}}
    speech = np.ones(400, np.float32)
    noisy, _ = Augmenter(Augment.of(conf), 0)(speech, "a_b_eng", (0, 0))
    assert np.array_equal(noisy, speech)


def test_reverberation_keeps_length_loudness_and_beginning(rooms):
    speech = np.zeros(SAMPLE_RATE, np.float32)
    speech[4000:4400] = np.random.default_rng(0).normal(0, 0.3, 400)
    augment = Augmenter(Augment.of({"reverb": {"prob": 1.0}}), 0)
    state = torch.get_rng_state()
    wet, done = augment(speech, "a_b_eng", (0, 0))
    assert done == ["reverb"] and wet.size == speech.size
    assert torch.equal(torch.get_rng_state(), state)  # which training draws from
    assert np.square(wet).sum() == pytest.approx(np.square(speech).sum(), rel=1e-3)
    assert np.square(wet[5000:]).sum() > 1e-4 * np.square(wet).sum()
    assert np.abs(wet[:3000]).max() < 1e-3


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"sped": [0.9]}, "augment.sped: unknown; did you mean 'speed'?"),
        ({"speed": 0.9}, "augment.speed: 0.9, expected a list of factors"),
        ({"speed": [0.9, 1]}, "augment.speed: 1, expected a list of factors"),
        ({"speed": [3]}, "augment.speed: 3, expected a list of factors, 0.5 to 2"),
        ({"speed": ["x"]}, "augment.speed: 'x', expected"),
        ({"speed": [0.9, 0.9]}, "augment.speed: [0.9, 0.9] names one twice"),
        ({"noise": 3}, "augment.noise: 3, expected 'key: value' lines"),
        ({"noise": {}}, "augment.noise: neither folder nor colours"),
        ({"noise": {"colours": ["blue"]}}, "augment.noise.colours: 'blue', expected"),
        (
            {"noise": {"colours": ["pink"], "snr_db": [30, 8]}},
            "augment.noise.snr_db: [30, 8], expected least and most",
        ),
        ({"noise": {"colours": ["pink"], "prob": 2}}, "augment.noise.prob: 2, expect"),
        ({"noise": {"snr_db": 8}}, "augment.noise.snr_db is 8, expected a list"),
        ({"noise": {"folder": "no/where"}}, "augment.noise.folder: no/where: no such"),
        (
            {"noise": {"folder": "powsm/train"}},
            "augment.noise.folder: powsm/train: no",
        ),
        ({"reverb": {"prob": "often"}}, "augment.reverb.prob is 'often', expected a n"),
        ({"reverb": {"room": 3}}, "augment.reverb.room: unknown"),
    ],
)
def test_fault_is_one_line(conf, told):
    (line,) = faults(conf)
    assert line.startswith(told)
    with pytest.raises(ConfigError):
        Augment.of(conf)


def test_what_asks_for_nothing_is_nothing():
    for conf in (None, {}, {"speed": []}, {"noise": None, "reverb": None}):
        assert faults(conf or {}) == [] and Augment.of(conf) is None


def test_break_changes_nothing_and_the_log_counts(tmp_path, caplog):
    corpus = make_corpus(tmp_path)
    conf = {"speed": [0.8, 1.2], "noise": {"colours": ["pink"], "prob": 0.5}}
    caplog.set_level(logging.INFO)

    def weights(exp, epochs):
        for max_epoch in epochs:
            args = make_args(
                corpus / "tokens", tmp_path, augment=conf, max_epoch=max_epoch
            )
            folders = [corpus / "dump" / name for name in ("train", "dev")]
            train(args, train_folder=folders[0], valid_folder=folders[1], exp=exp)
        return torch.load(exp / "2epoch.pth", weights_only=True)

    whole = weights(tmp_path / "whole", [2])
    broken = weights(tmp_path / "broken", [1, 2])
    assert all(torch.equal(whole[key], broken[key]) for key in whole)
    (first, *_) = [r.getMessage() for r in caplog.records if "augmented" in r.msg]
    assert first.startswith("epoch 1: of ") and " noise, " in first
    assert " speed 0.8" in first or " speed 1.2" in first
