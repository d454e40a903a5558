"""Index, batches and loader: everything is there once, in an order that is known."""

import pickle

import numpy as np
import pytest
import torch
from dump_builder import make_dump

from powsm.dataset import (
    BatchOptions,
    ExampleIndex,
    IndexMismatchError,
    UtteranceDataset,
    UtteranceLoader,
    build_index,
    plan_pass,
)

SECOND = 16_000


def encode(example):
    """Characters as ids, enough to see which text arrived."""
    return {k: np.array([ord(c) for c in v], np.int64) for k, v in example.items()}


@pytest.fixture
def folder(tmp_path):
    return make_dump(tmp_path / "train", [0.5, 1.0, 0.75, 1.5, 0.6], no_text=(2,))


def test_index_reads_what_stage_4_wrote(folder):
    index = ExampleIndex(folder)
    assert len(index) == 5
    assert index.n_examples.tolist() == [4, 4, 1, 4, 4]
    assert index.num_samples.tolist() == [8000, 16000, 12000, 24000, 9600]
    assert index.utt_id(1) == "tiny_u0001_ita"
    assert index.audio(1).endswith("tiny_u0001_ita.wav")
    lines = (folder / "text").read_text().splitlines()
    read = [f"{e['id']} {e['text']}" for u in range(5) for e in index.examples(u)]
    assert read == lines
    assert index.examples(2)[0]["text_prev"] == "<na>"


def test_index_is_built_once_and_again_when_a_file_changes(folder):
    stamp = build_index(folder) / "stamp.json"
    before = stamp.stat().st_mtime_ns
    build_index(folder)
    assert stamp.stat().st_mtime_ns == before
    text = (folder / "text").read_text()
    (folder / "text").write_text(text.replace("<eng>", "<fra>"))
    index = ExampleIndex(folder)
    assert stamp.stat().st_mtime_ns != before
    assert index.examples(0)[0]["text"].startswith("<fra>")


def test_index_can_be_sent_to_a_worker(folder):
    index = pickle.loads(pickle.dumps(ExampleIndex(folder)))
    assert index.utt_id(4) == "tiny_u0004_eng"


def test_files_that_disagree_are_refused_with_the_line(folder):
    lines = (folder / "text.prev").read_text().splitlines()
    lines[2] = "somebody_else_pr <na>"
    (folder / "text.prev").write_text("\n".join(lines) + "\n")
    with pytest.raises(IndexMismatchError, match=r"text.prev:3: found 'somebody_else"):
        build_index(folder)
    assert not list(folder.glob(".index*"))  # nothing half-built stays behind


def test_missing_lines_and_missing_files_are_named(folder):
    lines = (folder / "text.ctc").read_text().splitlines()
    (folder / "text.ctc").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(IndexMismatchError, match="17 lines, text.ctc has 16"):
        build_index(folder)
    (folder / "text.ctc").unlink()
    with pytest.raises(FileNotFoundError, match="text.ctc: not found; run stage 4"):
        build_index(folder)


def test_a_length_that_is_no_number_is_named(folder):
    path = folder / "utt2num_samples"
    path.write_text(path.read_text().replace(" 24000", " many"))
    with pytest.raises(IndexMismatchError, match="utt2num_samples:10: expected"):
        build_index(folder)


def random_lengths(n=1000):
    rng = np.random.default_rng(0)
    return (rng.gamma(3.0, 2.5, n).clip(0.5, 20) * SECOND).astype(np.int64)


def utterances(plan):
    return [key[0] for b in range(len(plan)) for key in plan.batch(b)]


def test_a_pass_holds_every_utterance_once_within_the_limit():
    lengths = random_lengths()
    options = BatchOptions(batch_seconds=60)
    plan = plan_pass(lengths, options, 0)
    assert sorted(utterances(plan)) == list(range(1000))
    for b in range(len(plan)):
        batch = plan.batch(b)
        assert len(batch) * max(total for _, total, _ in batch) <= 60 * SECOND


def test_batches_hold_utterances_of_like_length():
    lengths = random_lengths()
    plan = plan_pass(lengths, BatchOptions(batch_seconds=60), 0)
    padded = sum(
        len(plan.batch(b)) * max(t for _, t, _ in plan.batch(b))
        for b in range(len(plan))
    )
    # sorted by length, padding is a few per cent; unsorted batches would waste a third
    assert padded < 1.1 * lengths.sum()


def test_a_pass_is_a_function_of_seed_and_number():
    lengths = random_lengths(200)
    options = BatchOptions(batch_seconds=40, seed=3)
    first, again = plan_pass(lengths, options, 5), plan_pass(lengths, options, 5)
    other = plan_pass(lengths, options, 6)
    assert utterances(first) == utterances(again) != utterances(other)


def test_silence_up_to_the_window_counts_as_length():
    lengths = random_lengths(2000)
    options = BatchOptions(batch_seconds=60, window_share=0.3, window_s=20.0)
    plan = plan_pass(lengths, options, 0)
    grown = 0
    for b in range(len(plan)):
        for utt, total, lead in plan.batch(b):
            assert lengths[utt] <= total <= max(20 * SECOND, lengths[utt])
            assert 0 <= lead <= total - lengths[utt]
            grown += total > lengths[utt]
    assert 0.25 < grown / 2000 < 0.35


def test_an_utterance_longer_than_a_batch_is_an_error():
    with pytest.raises(ValueError, match="batch_seconds is 10, the longest of 2"):
        plan_pass(np.array([SECOND, 11 * SECOND]), BatchOptions(batch_seconds=10), 0)


def make_loader(folder, **kwargs):
    options = kwargs.pop("options", BatchOptions(batch_seconds=2, update_batches=2))
    dataset = UtteranceDataset(ExampleIndex(folder), encode, kwargs.pop("tasks", None))
    return UtteranceLoader(dataset, options, **kwargs)


def test_loader_gives_audio_and_text_of_each_utterance(folder):
    loader = make_loader(folder, options=BatchOptions(batch_seconds=100))
    ((utt_ids, batch),) = list(loader)
    assert batch["speech"].shape == (5, 24000)
    assert batch["text"].shape[0] == batch["example_audio"].numel() == 17
    for number, utt_id in enumerate(utt_ids):
        rows = torch.nonzero(batch["example_audio"] == number).flatten()
        texts = [
            "".join(map(chr, batch["text"][r][: batch["text_lengths"][r]]))
            for r in rows.tolist()
        ]
        lang = utt_id[-3:]
        assert all(text.startswith(f"<{lang}>") for text in texts)
        assert len(texts) == (1 if "u0002" in utt_id else 4)


def test_loader_keeps_only_the_named_tasks(folder):
    loader = make_loader(folder, options=BatchOptions(batch_seconds=100), tasks=["asr"])
    ((utt_ids, batch),) = list(loader)
    # utterance 2 has no orthography, so nothing of it is left
    assert len(utt_ids) == 4 and batch["text"].shape[0] == 4


def test_ranks_share_the_batches_of_one_rank(folder):
    alone = [ids for ids, _ in make_loader(folder)]
    ranks = [
        [ids for ids, _ in make_loader(folder, rank=r, world_size=2)] for r in range(2)
    ]
    assert len(ranks[0]) == len(ranks[1]) == len(alone) // 2
    assert [ids for pair in zip(*ranks, strict=True) for ids in pair] == alone


def test_ranks_that_do_not_divide_an_update_are_refused(folder):
    with pytest.raises(ValueError, match=r"update_batches \(2\) must be a multiple"):
        make_loader(folder, world_size=3)


def test_loader_starts_in_the_middle_as_if_it_had_run_there(folder):
    whole = [ids for ids, _ in make_loader(folder, updates_per_epoch=6, epoch=1)]
    rest = make_loader(folder, updates_per_epoch=6, epoch=1, first_step=5)
    assert len(whole) == len(rest) == 12
    assert [ids for ids, _ in rest] == whole[5:]


def test_epochs_follow_one_another_through_the_passes(folder):
    """Two epochs of three updates are the six updates of one longer epoch."""

    def ids(**kwargs):
        return [i for i, _ in make_loader(folder, **kwargs)]

    long = ids(updates_per_epoch=6, epoch=0)
    assert ids(updates_per_epoch=3, epoch=0) + ids(updates_per_epoch=3, epoch=1) == long


def test_workers_give_the_same_batches(folder):
    alone = list(make_loader(folder))
    worked = list(make_loader(folder, num_workers=1))
    for (ids, batch), (worked_ids, worked_batch) in zip(alone, worked, strict=True):
        assert ids == worked_ids
        assert all(torch.equal(batch[k], worked_batch[k]) for k in batch)
