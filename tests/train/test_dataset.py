"""The loader: audio and text of each utterance, by rank, from any step on."""

import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dump_builder import make_dump

from powsm.model.layout import LayoutMaker
from powsm.prepare.index import ExampleIndex, IndexMismatchError
from powsm.train.batches.options import BatchOptions
from powsm.train.dataset import UtteranceDataset, collate
from powsm.train.loader import (
    LoadingError,
    UtteranceLoader,
    _Handed,
    handing_over,
)


def encode(example):
    """Characters as ids, enough to see which text arrived."""
    return {k: np.array([ord(c) for c in v], np.int64) for k, v in example.items()}


@pytest.fixture
def folder(tmp_path):
    return make_dump(tmp_path / "train", [0.5, 1.0, 0.75, 1.5, 0.6], no_text=(2,))


def make_loader(folder, **kwargs):
    options = kwargs.pop("options", BatchOptions(batch_seconds=2, update_batches=2))
    dataset = UtteranceDataset(ExampleIndex(folder), encode, kwargs.pop("tasks", None))
    return UtteranceLoader(dataset, options, **kwargs)


def taken(loader):
    """Utterances of each batch."""
    return [batch.utt_ids for batch in loader]


def test_loader_gives_audio_and_text_of_each_utterance(folder):
    loader = make_loader(folder, options=BatchOptions(batch_seconds=100))
    (batch,) = list(loader)
    assert batch.speech.shape == (5, 24000)
    assert batch.text.shape[0] == batch.example_audio.numel() == 17
    for number, utt_id in enumerate(batch.utt_ids):
        rows = torch.nonzero(batch.example_audio == number).flatten()
        texts = [
            "".join(map(chr, batch.text[r][: batch.text_lengths[r]]))
            for r in rows.tolist()
        ]
        lang = utt_id[-3:]
        assert all(text.startswith(f"<{lang}>") for text in texts)
        assert len(texts) == (1 if "u0002" in utt_id else 4)


def test_loader_keeps_only_the_named_tasks(folder):
    loader = make_loader(folder, options=BatchOptions(batch_seconds=100), tasks=["asr"])
    (batch,) = list(loader)
    # utterance 2 has no orthography, so nothing of it is left
    assert len(batch.utt_ids) == 4 and batch.text.shape[0] == 4


def test_ranks_share_the_batches_of_one_rank(folder):
    def ids(**kwargs):
        return [
            batch.utt_ids
            for batch in make_loader(folder, updates_per_epoch=3, **kwargs)
        ]

    alone = ids()
    ranks = [ids(rank=r, world_size=2) for r in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == len(alone) // 2
    assert [ids for pair in zip(*ranks, strict=True) for ids in pair] == alone


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_whole_pass_has_every_utterance_once_for_any_number_of_ranks(
    folder, world_size
):
    loaders = [
        make_loader(folder, whole=True, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    taken = [[batch.utt_ids for batch in loader] for loader in loaders]
    assert {len(batches) for batches in taken} == {len(loaders[0])}
    counted = [
        utt_id
        for loader, batches in zip(loaders, taken, strict=True)
        for step, ids in enumerate(batches)
        if not loader.is_repeated(step)
        for utt_id in ids
    ]
    everything = make_loader(folder, whole=True)
    assert sorted(counted) == sorted(id for batch in everything for id in batch.utt_ids)
    assert len(counted) == 5


@pytest.mark.parametrize("updates", [1, None])
def test_ranks_that_do_not_divide_an_update_are_refused(folder, updates):
    with pytest.raises(ValueError, match=r"update_batches \(2\) must be a multiple"):
        make_loader(folder, world_size=3, updates_per_epoch=updates)


def test_epoch_without_a_number_of_updates_is_a_pass_in_its_order(tmp_path):
    folder = make_dump(tmp_path / "train", [0.5 + 0.1 * n for n in range(9)])
    options = BatchOptions(batch_seconds=1.4, update_batches=2)
    epochs = [
        taken(make_loader(folder, options=options, epoch=epoch)) for epoch in range(4)
    ]
    for ids in epochs:
        assert len(ids) == 8 and len({i for batch in ids for i in batch}) >= 8
    assert epochs[0] != epochs[1]
    shortest_first = [sorted(ids) == ids for ids in epochs]
    assert not all(shortest_first)


def test_utterances_without_the_tasks_are_in_no_batch(tmp_path):
    """Each batch here holds one utterance; three of five have no orthography."""
    folder = make_dump(tmp_path / "train", [1, 1.2, 1, 1.1, 1], no_text=(0, 2, 4))
    options = BatchOptions(batch_seconds=1.3)
    for tasks, expected in ((["asr"], [1, 3]), (["g2p", "pr"], range(5))):
        loader = make_loader(folder, options=options, tasks=tasks)
        numbers = sorted(int(batch.utt_ids[0].split("_")[1][1:]) for batch in loader)
        assert numbers == list(expected)
        assert all(len(batch.text) for batch in loader)
    languages = BatchOptions(batch_seconds=1.3, language_temperature=2.0)
    loader = make_loader(folder, options=languages, tasks=["p2g"])
    assert {batch.utt_ids[0][-9:] for batch in loader} == {"u0001_ita", "u0003_ita"}


def test_utterances_of_weight_0_are_in_no_batch(tmp_path):
    """Of five, one has no orthography and one is left out; another comes twice."""
    folder = make_dump(tmp_path / "train", [1, 1.2, 1, 1.1, 1], no_text=(0,))
    weights = tmp_path / "utt2weight"
    weights.write_text("tiny_u0001_ita 0\ntiny_u0003_ita 2\n")
    options = BatchOptions(batch_seconds=1.3)
    for tasks, expected in ((["asr"], [2, 3, 3, 4]), (None, [0, 2, 3, 3, 4])):
        data = UtteranceDataset(ExampleIndex(folder), encode, tasks, utt2weight=weights)
        numbers = sorted(
            int(batch.utt_ids[0].split("_")[1][1:])
            for batch in UtteranceLoader(data, options)
        )
        assert numbers == expected
        n_utts, hours = data.in_use()
        n_seconds = sum([1, 1.2, 1, 1.1, 1][n] for n in expected)
        assert n_utts == len(set(expected)) and hours == pytest.approx(n_seconds / 3600)
    assert UtteranceDataset(ExampleIndex(folder), encode).in_use()[0] == 5
    weights.write_text(
        "".join(f"tiny_u000{n}_{('eng', 'ita')[n % 2]} 0\n" for n in range(1, 5))
    )
    data = UtteranceDataset(ExampleIndex(folder), encode, ["asr"], utt2weight=weights)
    with pytest.raises(ValueError, match="of the tasks asr has weight 0"):
        data.plan(options, 0)


def test_tasks_that_no_utterance_has_are_an_error(tmp_path):
    folder = make_dump(tmp_path / "train", [0.5, 0.6], no_text=(0, 1))
    with pytest.raises(ValueError, match="no utterance has an example of tasks asr p2"):
        make_loader(folder, tasks=["asr", "p2g"])


def test_loader_starts_in_the_middle_as_if_it_had_run_there(folder):
    whole = [
        batch.utt_ids for batch in make_loader(folder, updates_per_epoch=6, epoch=1)
    ]
    rest = make_loader(folder, updates_per_epoch=6, epoch=1, first_step=5)
    assert len(whole) == len(rest) == 12
    assert [batch.utt_ids for batch in rest] == whole[5:]


def test_epochs_follow_one_another_through_the_passes(folder):
    """Two epochs of three updates are the six updates of one longer epoch."""

    def ids(**kwargs):
        return taken(make_loader(folder, **kwargs))

    long = ids(updates_per_epoch=6, epoch=0)
    assert ids(updates_per_epoch=3, epoch=0) + ids(updates_per_epoch=3, epoch=1) == long


def test_passes_that_are_known_are_not_planned_again(folder, monkeypatch):
    """Where an epoch begins costs a plan, however many passes came before."""
    options = {"updates_per_epoch": 3, "epoch": 5}
    passes = []
    first = make_loader(folder, updates_of_passes=passes, **options)
    expected = [batch.utt_ids for batch in first]
    assert len(passes) > 5 and sum(passes[:-1]) <= 15 < sum(passes)

    planned = []
    plan = UtteranceDataset.plan
    monkeypatch.setattr(
        UtteranceDataset,
        "plan",
        lambda self, options, n: planned.append(n) or plan(self, options, n),
    )
    loader = make_loader(folder, updates_of_passes=list(passes), **options)
    assert planned == [len(passes) - 1]
    assert [batch.utt_ids for batch in loader] == expected


def test_workers_give_the_same_batches(folder):
    alone = list(make_loader(folder))
    worked = list(make_loader(folder, num_workers=1))
    for batch, other in zip(alone, worked, strict=True):
        assert batch.utt_ids == other.utt_ids
        ours, theirs = batch.tensors(), other.tensors()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def shared_files() -> int:
    """Open files of tensors in shared memory; other threads may open others."""
    links = (Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
    return sum(link.is_symlink() and "torch" in os.readlink(link) for link in links)


def test_a_batch_is_handed_over_with_one_file(folder):
    dataset = UtteranceDataset(ExampleIndex(folder), encode, None)
    batch = collate([dataset[(utt, 0, 0)] for utt in range(3)])
    layout = {"mask": torch.tensor([[True, False, True]]), "n": torch.tensor(3)}
    batch = replace(batch, layout=layout | {"none": torch.zeros(0, 2), "ids": (1, 2)})
    before = shared_files()
    other = _Handed.of(batch).taken()
    assert before < shared_files() <= before + 2
    tensors = batch.tensors()
    assert all(torch.equal(x, getattr(other, key)) for key, x in tensors.items())
    assert other.utt_ids == batch.utt_ids and other.layout["ids"] == (1, 2)
    for name in ("mask", "n", "none"):
        found, expected = other.layout[name], batch.layout[name]
        assert torch.equal(found, expected) and found.dtype == expected.dtype
    storages = {x.untyped_storage().data_ptr() for x in other.tensors().values()}
    assert len(storages) == 1


def ctc_targets(folder, target, tasks=None):
    dataset = UtteranceDataset(ExampleIndex(folder), encode, tasks, target)
    batch = collate([dataset[(0, 0, 0)]])
    lengths = batch.text_ctc_lengths
    rows = zip(batch.text_ctc, lengths, strict=True)
    return ["".join(map(chr, row[:n])) for row, n in rows], batch


def test_killed_loading_process_ends_in_a_line(folder):
    """As the system does where memory runs out."""
    others = set(multiprocessing.active_children())
    batches = iter(make_loader(folder, updates_per_epoch=1000, num_workers=2))
    next(batches)
    loading = set(multiprocessing.active_children()) - others
    os.kill(loading.pop().pid, signal.SIGKILL)
    with pytest.raises(LoadingError, match="a loading process ended.*is there mem"):
        list(batches)


def test_set_that_is_gone_while_it_is_loaded_ends_in_a_line(folder):
    loader = make_loader(folder, updates_per_epoch=1000, num_workers=1)
    folder.rename(folder.with_name("old"))
    shutil.rmtree(folder.with_name("old"))
    with pytest.raises(IndexMismatchError) as caught:
        list(loader)
    expected = f"{folder}: was made anew while it was read; run the command again"
    assert str(caught.value) == expected


def test_error_of_the_system_in_a_loading_process_is_one_line():
    with pytest.raises(FileNotFoundError) as caught, handing_over():
        raise FileNotFoundError(
            "Caught FileNotFoundError in DataLoader worker process 0.\nOriginal "
            "Traceback...\nFileNotFoundError: [Errno 2] No such file or directory: "
            "'a.flac'\n"
        )
    assert str(caught.value) == "[Errno 2] No such file or directory: 'a.flac'"


def test_temporary_folder_with_a_long_name_ends_in_a_line(
    folder, tmp_path, monkeypatch
):
    """A socket of it has 108 characters at most."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 90)))
    (tmp_path / ("x" * 90)).mkdir()
    monkeypatch.delitem(
        multiprocessing.current_process()._config, "tempdir", raising=False
    )
    with pytest.raises(LoadingError, match="AF_UNIX path too long.* set TMPDIR to a "):
        list(make_loader(folder, num_workers=1))


def test_shared_memory_that_is_full_ends_in_a_line(folder, monkeypatch):
    def full(storage):
        raise RuntimeError("unable to allocate shared memory(shm)\nNo space left")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    with pytest.raises(LoadingError, match=r"\(shm\) No space left\): give it more"):
        list(make_loader(folder, num_workers=1))


@pytest.mark.parametrize(("hard", "is_enough"), [(100, False), (1000, True)])
def test_few_files_are_made_more_or_end_in_a_line(folder, monkeypatch, hard, is_enough):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, n: asked.append(n))
    if is_enough:
        list(make_loader(folder, num_workers=1))
        assert asked == [(272, hard)]
    else:
        with pytest.raises(LoadingError, match="100 files here, and loading needs 272"):
            list(make_loader(folder, num_workers=1))


def test_ctc_learns_phones_with_their_length_or_what_the_decoder_says(tmp_path):
    folder = make_dump(tmp_path / "train", [0.5])
    words = (folder / "ref.text").read_text().split(" ", 1)[1].strip()
    plain = (folder / "ref.ipa").read_text().split(" ")[1].strip()
    for name in ("text", "text.prev"):  # the recipe's data have length marks there
        lines = (folder / name).read_text().replace("//", "ː//")
        (folder / name).write_text(lines)
    long = plain.replace("//", "ː//")
    assert long != plain
    assert ctc_targets(folder, "phones")[0] == [plain]
    assert ctc_targets(folder, "phones_with_length")[0] == [long]
    assert ctc_targets(folder, "phones_with_length", ["asr"])[0] == [long]
    assert ctc_targets(folder, "code_points")[0] == [plain]  # `encode` cuts them up
    assert ctc_targets(folder, "code_points_with_length")[0] == [long]
    found, batch = ctc_targets(folder, "text")
    assert found == [long, words]  # phones first
    assert batch.example_ctc.tolist() == [1, 0, 1, 0]  # asr g2p p2g pr
    assert ctc_targets(folder, "text", ["asr"])[0] == [words]


def test_languages_come_from_the_ids(folder):
    langs = ExampleIndex(folder).langs()
    assert langs.tolist() == [langs[0], langs[1]] * 2 + [langs[0]]
    assert langs[0] != langs[1]


def test_loader_with_temperature_starts_in_the_middle_as_if_it_had_run_there(folder):
    options = BatchOptions(batch_seconds=2, update_batches=2, language_temperature=5.0)
    whole = taken(make_loader(folder, options=options))
    rest = [
        batch.utt_ids for batch in make_loader(folder, options=options, first_step=1)
    ]
    assert rest == whole[1:]


def put_into_shards(folder, name="shard"):
    """Every fifth recording in the same folder: five shards, far apart in the set."""
    lines = (folder / "wav.scp").read_text().splitlines()
    moved = {}
    for line in lines:
        path = Path(line.partition(" ")[2])
        shard = folder / f"{name}{int(path.name[6:10]) % 5}"
        shard.mkdir(exist_ok=True)
        if path not in moved:
            moved[path] = path.rename(shard / path.name)
    text = "".join(
        f"{key} {moved[Path(place)]}\n"
        for key, _, place in (line.partition(" ") for line in lines)
    )
    (folder / "wav.scp").write_text(text)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """30 recordings in five shards."""
    root = tmp_path_factory.mktemp("sharded")
    folder = make_dump(root / "train", [0.3 + 0.01 * n for n in range(30)])
    put_into_shards(folder)
    return folder


OF_FEW = BatchOptions(batch_seconds=1, update_batches=6, shards_together=1)


def test_ranks_share_batches_of_few_shards(sharded):
    """In the order of one rank, through two passes and into a third."""
    options = {"options": OF_FEW, "updates_per_epoch": 6}
    alone = taken(make_loader(sharded, **options))
    assert len(alone) == 36
    for ids in alone:
        assert len({int(utt_id[6:10]) % 5 for utt_id in ids}) == 1
    for size in (2, 3):
        ranks = [
            taken(make_loader(sharded, **options, rank=rank, world_size=size))
            for rank in range(size)
        ]
        together = [ids for step in zip(*ranks, strict=True) for ids in step]
        assert together == alone


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_batches_of_few_shards_go_on_as_if_they_had_run_there(sharded, world_size):
    options = {"options": OF_FEW, "updates_per_epoch": 4, "epoch": 1}
    options |= {"rank": world_size - 1, "world_size": world_size}
    whole = taken(make_loader(sharded, **options))
    first_step = len(whole) // 2 + 1
    assert (
        taken(make_loader(sharded, **options, first_step=first_step))
        == (whole[first_step:])
    )


def test_batches_of_few_shards_stay_where_the_audio_moves(sharded, tmp_path):
    """A run goes on with its audio on another disk, as it does without shards."""
    options = {"options": OF_FEW, "updates_per_epoch": 6}
    expected = taken(make_loader(sharded, **options))
    moved = tmp_path / "disk/train"
    moved.parent.mkdir()
    shutil.copytree(sharded, moved, ignore=shutil.ignore_patterns(".*"))
    text = (sharded / "wav.scp").read_text().replace(str(sharded), str(moved))
    (moved / "wav.scp").write_text(text)
    put_into_shards(moved, "other")
    assert taken(make_loader(moved, **options)) == expected


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loader_works_the_layout_out(folder, num_workers):
    maker = LayoutMaker(na=0, sop=1, sos=2, eos=3, padding=-1, tasks={"asr": 4})
    options = BatchOptions(batch_seconds=100)
    loader = make_loader(
        folder, options=options, num_workers=num_workers, layout_maker=maker
    )
    (batch,) = list(loader)
    expected = maker(batch)
    assert batch.layout.n_samples == tuple(batch.speech_lengths.tolist())
    assert torch.equal(batch.layout.tokens, expected.tokens)
    assert torch.equal(batch.layout.owner, expected.owner)
    # every text and an end after it are learned
    n_learned = int(batch.text_lengths.sum()) + batch.n_examples
    assert batch.layout.target.numel() == n_learned
    assert all(half.layout is None for half in batch.halves())
