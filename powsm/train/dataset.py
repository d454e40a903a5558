"""Utterances with audio and tokens, and batches made of them."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from powsm.audio import SAMPLE_RATE, n_encoder_frames
from powsm.errors import PowsmError
from powsm.model.batch import Batch
from powsm.model.build import CTC_ONLY_MODELS
from powsm.model.s2t_ctc import N_PREFIX
from powsm.prepare.index import ExampleIndex
from powsm.prepare.weights import times_of
from powsm.settings import ConfigError
from powsm.tasks import NA_SYM, NO_TIME_SYM, PHONES, TASKS, task_of, tasks_writing
from powsm.train.augment.apply import Augmenter, at_speed
from powsm.train.batches.options import BatchOptions
from powsm.train.batches.plan import Key, PassPlan, plan_pass
from powsm.vocabulary import code_points
from powsm.vocabulary.tokenizer import Tokenizer

IGNORE_ID = -1  # padding of token ids, as in ESPnet's collate function
TOO_FAST = "left at its speed, for its phones"  # of an utterance, beside what was done
CTC_TARGETS = (
    *("phones", "phones_with_length", "code_points", "code_points_with_length"),
    "text",
)


def text_encoder(args: argparse.Namespace) -> Callable[[dict], dict]:
    """ESPnet's S2T text preprocessing: strings of an example to int64 token ids.

    The tokens are those of `S2TPreprocessor`, or `S2TCTCPreprocessor` for a model
    without a decoder, but for `<unk>` as the language of a prompt, which ESPnet cuts
    into characters.

    Raises:
        ConfigError: the settings drop prompts or times at random.
    """
    is_ctc_only = args.model in CTC_ONLY_MODELS
    keys = ("text_prev_apply_prob",) + (() if is_ctc_only else ("time_apply_prob",))
    for key in keys:
        value = dict(args.preprocessor_conf).get(key, 0.5)
        if value != 1.0:
            raise ConfigError(
                f"preprocessor_conf.{key} is {value}; g2p and p2g need their prompt, "
                "and the data hold no times: set it to 1.0, as the paper does"
            )
    tokenizer = Tokenizer(args.bpemodel, args.token_list)
    encode = {
        "text": tokenizer.encode_target,
        "text_prev": tokenizer.encode,
        "text_ctc": tokenizer.encode,
    }
    is_of_points = args.ctc_target.startswith(code_points.PREFIX)
    of_phones = dict(args.model_conf).get("ctc_vocab") == "phones"
    if of_phones and (is_of_points or args.ctc_target == "text"):
        raise ConfigError(
            f"ctc_target {args.ctc_target} needs more tokens than phones; leave "
            "model_conf.ctc_vocab out"
        )
    if is_of_points:
        encode["text_ctc"] = code_points.CodePoints(tokenizer.token_list).encode

    def encode_example(example: dict[str, str]) -> dict[str, np.ndarray]:
        ids = {
            name: np.array(encode[name](text), np.int64)
            for name, text in example.items()
        }
        if is_ctc_only:
            # language and task begin both targets, and no `▁` precedes a lone <na>
            ids["text_ctc"] = np.concatenate([ids["text"][:N_PREFIX], ids["text_ctc"]])
            if example["text_prev"] == NA_SYM:
                ids["text_prev"] = ids["text_prev"][1:]
        return ids

    return encode_example


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
        augment: what is done to recordings; None takes them as they are.
        utt2weight: a file that says how often utterances come, `prepare.weights`.
    """

    def __init__(
        self,
        index: ExampleIndex,
        encode: Callable[[dict[str, str]], dict[str, np.ndarray]],
        tasks: Sequence[str] | None = None,
        ctc_target: str = "phones",
        augment: Augmenter | None = None,
        utt2weight: Path | None = None,
    ):
        if ctc_target not in CTC_TARGETS:
            raise PowsmError(
                f"ctc_target is {ctc_target!r}, expected one of {' '.join(CTC_TARGETS)}"
            )
        self.ctc_target = ctc_target
        self.index = index
        self.encode = encode
        self.augment = augment
        self.tasks = None if tasks is None else frozenset(tasks)
        self.utt2weight = utt2weight

    @cached_property
    def times(self) -> np.ndarray | None:
        """How often each utterance is wanted in a pass; None is once."""
        return (
            None if self.utt2weight is None else times_of(self.index, self.utt2weight)
        )

    @cached_property
    def _utts(self) -> np.ndarray | None:
        """Numbers of the utterances with an example of `tasks` that are wanted at all;
        None is all."""
        if self.tasks is None and self.times is None:
            return None
        is_in = np.ones(len(self.index), bool)
        if self.tasks is not None:
            is_in &= self.index.has_task(self.tasks)
            if not is_in.any():
                raise PowsmError(
                    f"{self.index.folder}: no utterance has an example of tasks "
                    f"{' '.join(sorted(self.tasks))}; is there orthography in the data?"
                )
        if self.times is not None:
            is_in &= self.times > 0
            if not is_in.any():
                raise PowsmError(
                    f"{self.utt2weight}: every utterance of {self.index.folder} that "
                    f"has one of the tasks {' '.join(sorted(self.tasks))} has weight 0"
                )
        return np.flatnonzero(is_in).astype(np.int32)

    @cached_property
    def _langs(self) -> np.ndarray:
        langs = self.index.langs()
        return langs if self._utts is None else langs[self._utts]

    @cached_property
    def _shards(self) -> np.ndarray:
        shards = self.index.shards()
        return shards if self._utts is None else shards[self._utts]

    def in_use(self) -> tuple[int, float]:
        """How many utterances come at all, and the hours of a pass over them."""
        samples = self.index.n_samples
        if self.times is not None:
            samples = samples * self.times
        if self._utts is not None:
            samples = samples[self._utts]
        return samples.size, float(samples.sum()) / SAMPLE_RATE / 3600

    def plan(self, options: BatchOptions, pass_number: int) -> PassPlan:
        """The batches of a pass: `plan_pass` over the utterances of `tasks`.

        Raises:
            PowsmError: there is none, or one is longer than a batch.
        """
        samples, utts = self.index.n_samples, self._utts
        if utts is not None:
            samples = samples[utts]
        langs = None if options.language_temperature == 1.0 else self._langs
        speeds = None if self.augment is None else self.augment.settings.speed
        shards = self._shards if options.shards_together else None
        times = None if self.times is None else self.times[utts]
        plan = plan_pass(samples, options, pass_number, langs, speeds, shards, times)
        return plan if utts is None else replace(plan, utts=utts[plan.utts])

    def __getitem__(self, key: Key | tuple[int, int, int]) -> dict:
        key = Key(*key)
        utt_id = self.index.utt_id(key.utt)
        rows = self._with_ctc_targets(self.index.examples(key.utt))
        if self.tasks is not None:
            rows = [r for r in rows if task_of(r["id"]) in self.tasks]
        tokens = [
            self.encode({k: v for k, v in row.items() if k != "id"}) for row in rows
        ]
        speech, done = self.index.speech(key.utt), []
        if key.draw is not None:
            speech, done = self._augmented(speech, utt_id, key, tokens)
        padded = np.zeros(max(key.total, key.lead + speech.size), np.float32)
        padded[key.lead : key.lead + speech.size] = speech
        return {
            "utt_id": utt_id,
            "example_ids": [row["id"] for row in rows],
            "speech": padded,
            "examples": tokens,
            "done": done,
        }

    def _augmented(
        self, speech: np.ndarray, utt_id: str, key: Key, tokens: Sequence[dict]
    ) -> tuple[np.ndarray, list[str]]:
        """The speech that is learned from, and the names of what was done to it."""
        done = []
        if key.speed != 1.0:
            faster = at_speed(speech, key.speed)
            n_frames = n_encoder_frames(max(key.total, key.lead + faster.size))
            if n_frames >= max(_ctc_frames(row["text_ctc"]) for row in tokens):
                speech = faster
                done.append(f"speed {key.speed:g}")
            else:
                done.append(TOO_FAST)
        speech, more = self.augment(speech, utt_id, key.draw)
        return speech, done + more

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


def _ctc_frames(target: np.ndarray) -> int:
    """Encoder frames that a CTC target needs: a blank stands between equal tokens."""
    return target.size + int((target[1:] == target[:-1]).sum())


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

    Where the examples of an utterance have different CTC targets, `text_ctc` has a row
    for each of them.
    """
    lengths = torch.tensor([item["speech"].size for item in items])
    speech = torch.zeros(len(items), int(lengths.max()))
    for row, item in zip(speech, items, strict=True):
        row[: item["speech"].size] = torch.from_numpy(item["speech"])
    targets: list[np.ndarray] = []
    example_ctc: list[int] = []
    for item in items:
        different, which = _ctc_targets(item)
        example_ctc += [len(targets) + number for number in which]
        targets += different
    examples = [example for item in items for example in item["examples"]]
    tokens: dict[str, torch.Tensor] = {}
    for name, rows in (
        ("text_ctc", targets),
        ("text", [example["text"] for example in examples]),
        ("text_prev", [example["text_prev"] for example in examples]),
    ):
        tokens[name], tokens[f"{name}_lengths"] = _pad(rows, IGNORE_ID)
    n_examples = torch.tensor([len(item["examples"]) for item in items])
    return Batch(
        speech=speech,
        speech_lengths=lengths,
        **tokens,
        example_audio=torch.repeat_interleave(torch.arange(len(items)), n_examples),
        example_ctc=(torch.tensor(example_ctc) if len(targets) > len(items) else None),
        utt_ids=[item["utt_id"] for item in items],
        done=[what for item in items for what in item.get("done", ())],
    )
