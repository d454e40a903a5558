"""Utterances with audio and tokens, and the loader that gives them batch by batch."""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from powsm.audio import AudioError
from powsm.errors import PowsmError
from powsm.prepare.index import ExampleIndex
from powsm.tasks import NO_TIME_SYM, PHONES, TASKS, task_of, tasks_writing
from powsm.train.batches import BatchOptions, PassPlan, plan_pass

IGNORE_ID = -1  # padding of token ids, as in ESPnet's collate function
CTC_TARGETS = (
    "phones",
    "phones_with_length",
    "code_points",
    "code_points_with_length",
    "text",
)

Batch = tuple[list[str], dict[str, torch.Tensor]]  # utterance ids and tensors


class UtteranceDataset(Dataset):
    """Utterances with audio and tokens, addressed by (utt, total, lead).

    Args:
        index: the dump folder.
        encode: from `text text_prev text_ctc` strings of one example to int64 ids
            under the same names: ESPnet's S2TPreprocessor text step.
        tasks: keep only the examples whose id ends in one of these; None keeps all.
        ctc_target: what the CTC head learns: `phones` without length and break marks,
            `phones_with_length`; `code_points` of either, which `encode` makes of them;
            or `text`: of each example what its decoder says, phones for pr and g2p,
            orthography for asr and p2g (the paper's figure 2).
    """

    def __init__(
        self,
        index: ExampleIndex,
        encode: Callable[[dict[str, str]], dict[str, np.ndarray]],
        tasks: Sequence[str] | None = None,
        ctc_target: str = "phones",
    ):
        if ctc_target not in CTC_TARGETS:
            raise PowsmError(
                f"ctc_target is {ctc_target!r}, expected one of {' '.join(CTC_TARGETS)}"
            )
        self.ctc_target = ctc_target
        self.index = index
        self.encode = encode
        self.tasks = None if tasks is None else frozenset(tasks)

    @cached_property
    def _utts(self) -> np.ndarray | None:
        """Numbers of the utterances with an example of `tasks`; None is all."""
        if self.tasks is None:
            return None
        utts = np.flatnonzero(self.index.has_task(self.tasks)).astype(np.int32)
        if not utts.size:
            raise PowsmError(
                f"{self.index.folder}: no utterance has an example of tasks "
                f"{' '.join(sorted(self.tasks))}; is there orthography in the data?"
            )
        return utts

    @cached_property
    def _langs(self) -> np.ndarray:
        langs = self.index.langs()
        return langs if self._utts is None else langs[self._utts]

    def plan(self, options: BatchOptions, pass_number: int) -> PassPlan:
        """The batches of a pass: `plan_pass` over the utterances of `tasks`.

        Raises:
            PowsmError: there is none, or one is longer than a batch.
        """
        samples, utts = self.index.num_samples, self._utts
        if utts is not None:
            samples = samples[utts]
        langs = None if options.language_temperature == 1.0 else self._langs
        plan = plan_pass(samples, options, pass_number, langs)
        return plan if utts is None else replace(plan, utts=utts[plan.utts])

    def __getitem__(self, key: tuple[int, int, int]) -> dict:
        utt, total, lead = key
        speech = self.index.speech(utt)
        padded = np.zeros(max(total, lead + speech.size), np.float32)
        padded[lead : lead + speech.size] = speech
        rows = self._with_ctc_targets(self.index.examples(utt))
        if self.tasks is not None:
            rows = [r for r in rows if task_of(r["id"]) in self.tasks]
        tokens = [
            self.encode({k: v for k, v in row.items() if k != "id"}) for row in rows
        ]
        return {
            "utt_id": self.index.utt_id(utt),
            "example_ids": [row["id"] for row in rows],
            "speech": padded,
            "examples": tokens,
        }

    def _with_ctc_targets(self, rows: list[dict[str, str]]) -> list[dict[str, str]]:
        said = {
            task_of(row["id"]): row["text"].partition(NO_TIME_SYM)[2].strip()
            for row in rows
        }
        phones = [text for task, text in said.items() if TASKS[task].writes == PHONES]
        has_length = self.ctc_target.endswith("_with_length")
        if has_length and not phones:
            raise PowsmError(
                f"{self.index.folder}: {rows[0]['id']} has no example that writes "
                f"phones, and ctc_target {self.ctc_target} needs one; run stage 4 "
                f"with one of the tasks {' '.join(tasks_writing(PHONES))}"
            )
        for row in rows:
            if has_length:
                row["text_ctc"] = phones[0]
            elif self.ctc_target == "text":
                row["text_ctc"] = said[task_of(row["id"])]
        return rows


def _pad(arrays: Sequence[np.ndarray], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(a) for a in arrays], dtype=torch.long)
    out = torch.full((len(arrays), int(lengths.max())), value, dtype=torch.long)
    for row, a in zip(out, arrays, strict=True):
        row[: len(a)] = torch.from_numpy(a)
    return out, lengths


def _ctc_targets(item: dict) -> tuple[list[np.ndarray], list[int]]:
    """The different CTC targets of an utterance, and which of them each example has.

    A target of phones comes first: it is the one that validation compares with.
    """
    keys = [example["text_ctc"].tobytes() for example in item["examples"]]
    tasks = [TASKS[task_of(example_id)] for example_id in item["example_ids"]]
    phones_first = sorted(range(len(keys)), key=lambda i: tasks[i].writes != PHONES)
    different = dict.fromkeys(keys[i] for i in phones_first)
    number = {key: n for n, key in enumerate(different)}
    first = [keys.index(key) for key in number]
    targets = [item["examples"][i]["text_ctc"] for i in first]
    return targets, [number[key] for key in keys]


def collate(items: Sequence[dict]) -> Batch:
    """One batch of U utterances with E examples in all.

    Returns:
        The utterance ids and a dict with `speech` (U, samples) float32, `text_ctc`
        (U, tokens), `text` and `text_prev` (E, tokens), their `*_lengths`, and
        `example_audio` (E,): which row of `speech` an example belongs to. Where the
        examples of an utterance have different CTC targets, `text_ctc` has a row for
        each of them and `example_ctc` (E,) says which one an example has.
    """
    speech_lengths = torch.tensor([item["speech"].size for item in items])
    speech = torch.zeros(len(items), int(speech_lengths.max()))
    for row, item in zip(speech, items, strict=True):
        row[: item["speech"].size] = torch.from_numpy(item["speech"])
    batch = {"speech": speech, "speech_lengths": speech_lengths}
    targets: list[np.ndarray] = []
    example_ctc: list[int] = []
    for item in items:
        different, which = _ctc_targets(item)
        example_ctc += [len(targets) + number for number in which]
        targets += different
    batch["text_ctc"], batch["text_ctc_lengths"] = _pad(targets, IGNORE_ID)
    if len(targets) > len(items):
        batch["example_ctc"] = torch.tensor(example_ctc)
    examples = [example for item in items for example in item["examples"]]
    for name in ("text", "text_prev"):
        batch[name], batch[f"{name}_lengths"] = _pad(
            [example[name] for example in examples], IGNORE_ID
        )
    batch["example_audio"] = torch.repeat_interleave(
        torch.arange(len(items)), torch.tensor([len(i["examples"]) for i in items])
    )
    return [item["utt_id"] for item in items], batch


def halves(utt_ids: list[str], tensors: dict[str, torch.Tensor]) -> list[Batch]:
    """A batch of U >= 2 utterances as two, the first with the odd one."""
    middle = (len(utt_ids) + 1) // 2
    audio = tensors["example_audio"]
    ctc = tensors.get("example_ctc", audio)
    out = []
    for first, last in ((0, middle), (middle, len(utt_ids))):
        mine = (audio >= first) & (audio < last)
        first_ctc, last_ctc = int(ctc[mine].min()), int(ctc[mine].max()) + 1
        rows = {
            "speech": slice(first, last),
            "text_ctc": slice(first_ctc, last_ctc),
            "text": mine,
            "text_prev": mine,
        }
        part = {"example_audio": audio[mine] - first}
        if "example_ctc" in tensors:
            part["example_ctc"] = ctc[mine] - first_ctc
        for name, chosen in rows.items():
            lengths = tensors[f"{name}_lengths"][chosen]
            part[f"{name}_lengths"] = lengths
            part[name] = tensors[name][chosen][:, : int(lengths.max())]
        out.append((utt_ids[first:last], part))
    return out


class UtteranceLoader:
    """Batches of one epoch for one rank, beginning at any of them at once.

    An epoch is a stretch of the endless series of passes: epoch e of n updates
    begins at update e x n, wherever in a pass that is. Without a number of updates it
    is the whole updates of pass e.

    Args:
        dataset: what is read.
        options: how batches are made.
        updates_per_epoch: length of an epoch in updates; None makes it a pass.
        whole: every batch of one pass instead, by length, whatever `update_batches`
            is: for validation.
        epoch: number of the epoch, from 0.
        rank, world_size: this process among the ranks.
        first_step: how many of the epoch's batches on this rank are already done.
        updates_of_passes: updates of the passes from the first on, as far as they are
            known; those are not planned again to find where an epoch begins. What is
            found is added.
        num_workers: loading processes.

    Raises:
        PowsmError: `update_batches` is not a multiple of `world_size`, unless `whole`.
    """

    def __init__(
        self,
        dataset: UtteranceDataset,
        options: BatchOptions,
        *,
        updates_per_epoch: int | None = None,
        whole: bool = False,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        first_step: int = 0,
        updates_of_passes: list[int] | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
    ):
        if not whole and options.update_batches % world_size:
            raise PowsmError(
                f"update_batches ({options.update_batches}) must be a multiple of the "
                f"number of ranks ({world_size})"
            )
        self.dataset = dataset
        self.options = options
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.first_step = first_step
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        if whole:
            self.batches_per_update = 1
            self._first = (epoch, self._plan_whole(epoch), 0)
            self._updates = len(self._first[1]) // world_size
            return
        self.batches_per_update = options.update_batches // world_size
        if updates_per_epoch is None:
            self._first = (epoch, self._plan(epoch), 0)
            self._updates = len(self._first[1]) // options.update_batches
        else:
            known = [] if updates_of_passes is None else updates_of_passes
            self._first = self._find(epoch * updates_per_epoch, known)
            self._updates = updates_per_epoch

    def _plan(self, number: int) -> PassPlan:
        return self.dataset.plan(self.options, number)

    def _plan_whole(self, number: int) -> PassPlan:
        """Every batch, and to even the ranks out the first ones again."""
        plan = self._plan(number)
        self._n_batches = plan.bounds.size - 1
        rounds = -(-self._n_batches // self.world_size)
        order = np.resize(np.arange(self._n_batches), rounds * self.world_size)
        return replace(plan, order=order)

    def is_repeated(self, step: int) -> bool:
        """Whether batch `step` of a `whole` pass on this rank evens the ranks out."""
        return step * self.world_size + self.rank >= self._n_batches

    def _find(self, skip: int, known: list[int]) -> tuple[int, PassPlan, int]:
        """Where the update after the first `skip` is: pass, its plan, update there."""
        for number, updates in enumerate(known):
            if skip < updates:
                return number, self._plan(number), skip
            skip -= updates
        while True:
            plan = self._plan(len(known))
            known.append(len(plan) // self.options.update_batches)
            if skip < known[-1]:
                return len(known) - 1, plan, skip
            skip -= known[-1]

    def __len__(self) -> int:
        """Batches of the whole epoch on this rank, those already done included."""
        return self._updates * self.batches_per_update

    def _keys(self) -> Iterator[list[tuple[int, int, int]]]:
        number, plan, update = self._first
        size = self.batches_per_update * self.world_size
        for step in range(len(self)):
            if (update + 1) * size > len(plan):
                number += 1
                plan = self._plan(number)
                update = 0
            part = step % self.batches_per_update
            if step >= self.first_step:
                yield plan.batch(update * size + part * self.world_size + self.rank)
            if part == self.batches_per_update - 1:
                update += 1

    def __iter__(self) -> Iterator[Batch]:
        if self.num_workers:
            atexit.unregister(_end_workers)
            atexit.register(_end_workers)
        try:
            yield from DataLoader(
                self.dataset,
                batch_sampler=_Keys(self._keys, len(self) - self.first_step),
                collate_fn=collate,
                num_workers=self.num_workers,
                worker_init_fn=_leave_signals,
                pin_memory=self.pin_memory,
            )
        except AudioError as err:
            # a loading process sends its whole traceback; the message ends it
            message = str(err).rstrip().rpartition("\n")[2]
            kind = f"{AudioError.__module__}.{AudioError.__qualname__}: "
            raise AudioError(message.removeprefix(kind)) from err


def _leave_signals(worker: int) -> None:
    """Let the training process alone see signals: it saves, and needs its data."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """End what loads when an error ends training: Python would ask with SIGTERM."""
    for process in multiprocessing.active_children():
        process.kill()


class _Keys:
    """A batch sampler from a function that makes the iterator."""

    def __init__(self, make: Callable[[], Iterator], n: int):
        self._make = make
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator:
        return self._make()
