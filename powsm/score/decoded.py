"""Decoded sets: what knows `<exp>/<profile>/<set>/<task>[_<decode>]`.

Stage 12 fills such a folder with `hyp.jsonl` and `timing.json`; the references and the
record of how they were made are in the set's folder of `dump/raw`.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from powsm.audio import SAMPLE_RATE
from powsm.errors import PowsmError
from powsm.files.current import is_of_earlier_version
from powsm.files.datadir import NORMALISER_FILE, RAW_REFERENCES, SET_FILE, read_scp
from powsm.files.whole import read_json, read_json_lines
from powsm.phones.orthography import DEFAULT_POLICY
from powsm.phones.orthography import POLICIES as TEXT_POLICIES
from powsm.score.metrics import score_lid, score_phones, score_text
from powsm.score.rates import Scores
from powsm.tasks import (
    DECODED_TASKS,
    LANGUAGE,
    NO_TIME_SYM,
    PHONES,
    TEXT,
    Filling,
    task_of,
    tasks_writing,
)

log = logging.getLogger(__name__)

HYP_FILE = "hyp.jsonl"
TIMING_FILE = "timing.json"
DONE_FILE = "done.json"
_REFERENCE_FILES = {PHONES: "ref.ipa", TEXT: "ref.text"}


class DecodedError(PowsmError):
    """A decoded set or its references cannot be read; the message says what to do."""


@dataclass(frozen=True)
class DumpSet:
    """References of a set, `dump/raw/<set>`, by utt_id.

    Raises (all attributes and methods):
        DecodedError: a file of stage 4 is missing or not what stage 4 writes.
    """

    folder: Path

    @cached_property
    def langs(self) -> dict[str, str]:
        """ISO 639-3 of each utterance."""
        return self._of_examples("utt2lang")

    @cached_property
    def speakers(self) -> dict[str, str]:
        # sets made before 2026-11-29 have them in utt2spk
        is_new = (self.folder / "utt2speaker").exists()
        return self._of_examples("utt2speaker" if is_new else "utt2spk")

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Parts of its corpus that the copy lacked of which the set was made."""
        path = self.folder / SET_FILE
        record = read_json(path, "make the set again") if path.exists() else {}
        return tuple(record.get("missing", ()))

    @cached_property
    def locations(self) -> dict[str, str]:
        """`wav.scp` value of each utterance."""
        return self._of_examples("wav.scp")

    @cached_property
    def durations_s(self) -> dict[str, float]:
        n_samples = self._of_examples("utt2num_samples")
        if wrong := [n for n in n_samples.values() if not n.isdecimal()]:
            raise DecodedError(
                f"{self.folder}/utt2num_samples: {wrong[0]!r} is no number of samples; "
                "run stage 4 again"
            )
        return {utt_id: int(n) / SAMPLE_RATE for utt_id, n in n_samples.items()}

    @cached_property
    def normaliser(self) -> dict[str, str]:
        """How the set was made: `policy`, `version` and `text_policy`."""
        path = self._existing(self.folder / NORMALISER_FILE)
        return read_json(path, "run stage 4 again", keys=("policy", "version"))

    @property
    def text_policy(self) -> str:
        """The policy of `ref.text`."""
        policy = self.normaliser.get("text_policy")
        if policy is None:
            log.warning(
                "%s names no text policy; scored by %s",
                self.folder / NORMALISER_FILE,
                DEFAULT_POLICY,
            )
            return DEFAULT_POLICY
        if policy not in TEXT_POLICIES:
            raise DecodedError(
                f"{self.folder / NORMALISER_FILE}: text policy {policy!r}, expected "
                f"one of {' '.join(TEXT_POLICIES)}; a set without orthography cannot "
                "be scored in words"
            )
        return policy

    def references(self, writes: Filling, *, raw: bool = False) -> dict[str, str]:
        """What a task should have written: IPA, orthography or ISO 639-3.

        A training set has no references of its own: there they are its targets.

        Args:
            raw: IPA as the corpus has it, before any normalising.
        """
        if writes == LANGUAGE:
            return self.langs
        if raw and writes == PHONES:
            return dict(read_scp(self._existing(self.folder / RAW_REFERENCES)))
        path = self.folder / _REFERENCE_FILES[writes]
        if self.folder.name.startswith("train") and not path.exists():
            return self._targets(writes)
        if not (refs := dict(read_scp(self._existing(path)))):
            raise DecodedError(f"{path}: no utterance in it; run stage 4 again")
        return refs

    def _targets(self, writes: Filling) -> dict[str, str]:
        """Targets of the tasks that write this; empty where an utterance has none."""
        tasks = tasks_writing(writes)
        refs: dict[str, str] = {}
        for example_id, text in read_scp(self._existing(self.folder / "text")):
            utt_id, _, task = example_id.rpartition("_")
            target = text.partition(NO_TIME_SYM)[2].strip() if task in tasks else ""
            refs[utt_id] = refs.get(utt_id) or target
        return refs

    def with_text(self, refs: Mapping[str, str]) -> dict[str, str]:
        """References of the utterances that have orthography, as some tasks need."""
        texts = self.references(TEXT)
        kept = {utt_id: ref for utt_id, ref in refs.items() if texts.get(utt_id)}
        if len(kept) < len(refs):
            log.info(
                "%s: %d of %d utterances have no orthography and are not scored",
                *(self.folder, len(refs) - len(kept), len(refs)),
            )
        return kept

    def _of_examples(self, name: str) -> dict[str, str]:
        """Values by utt_id, of a file with a line an example (`<utt_id>_<task>`)."""
        return {
            example_id[: -len(task_of(example_id)) - 1]: value
            for example_id, value in read_scp(self._existing(self.folder / name))
        }

    def _existing(self, path: Path) -> Path:
        if not self.folder.is_dir():
            raise DecodedError(
                f"{self.folder}: no such folder; name the dump folder that the set was "
                "decoded from with --dump"
            )
        if not path.exists():
            raise DecodedError(f"{path} is missing; run stage 4 again")
        return path


def decoded_folder(exp: Path, profile: str, set_name: str, tag: str) -> Path:
    """Where stage 12 puts a set.

    Args:
        exp: the experiment.
        profile: its name, of the file `conf/<profile>.yaml`.
        set_name: of the dump folder.
        tag: `<task>[_<decode>]`, `Profile.tag` of the task.
    """
    return exp / profile / set_name / tag


@dataclass(frozen=True)
class DecodedSet:
    """One folder `<profile>/<set>/<task>[_<decode>]` that stage 12 filled."""

    folder: Path

    @property
    def profile(self) -> str:
        """`paper` for what `conf/decode_paper.yaml` decoded."""
        return self.folder.parents[1].name.removeprefix("decode_")

    @property
    def set_name(self) -> str:
        return self.folder.parent.name

    @property
    def task(self) -> str:
        return self.folder.name.partition("_")[0]

    @property
    def decode(self) -> str:
        """What follows the task in the folder's name; empty for languages."""
        return self.folder.name.partition("_")[2]

    @property
    def place(self) -> Path:
        """`<profile>/<set>/<task>[_<decode>]`, the same in every experiment."""
        return Path(*self.folder.parts[-3:])

    @property
    def writes(self) -> Filling:
        """What was decoded: phones, text or languages.

        Raises:
            DecodedError: a task that does not exist.
        """
        if self.task not in DECODED_TASKS:
            raise DecodedError(
                f"{self.folder}: no task {self.task!r}; the tasks are "
                f"{' '.join(DECODED_TASKS)}"
            )
        return DECODED_TASKS[self.task].writes

    def records(self) -> list[dict]:
        """Rows of `hyp.jsonl`, one an utterance.

        Raises:
            DecodedError: a line that is not JSON with an utt_id and a text, or an
                utterance that is given twice.
        """
        records: dict[str, dict] = {}
        path = self.folder / HYP_FILE
        remedy = "decode the set again (stage 12)"
        rows = read_json_lines(path, remedy, keys=("utt_id", "text"))
        for number, record in enumerate(rows, 1):
            utt_id = record["utt_id"]
            if not isinstance(utt_id, str) or not isinstance(record["text"], str):
                raise DecodedError(f"{path}:{number}: utt_id or text is none; {remedy}")
            if utt_id in records:
                raise DecodedError(
                    f"{path}:{number}: {utt_id!r} is given twice; {remedy}"
                )
            records[utt_id] = record
        return list(records.values())

    @property
    def is_of_earlier_version(self) -> bool:
        """Whether stage 12 would say something else now, of the same weights."""
        return is_of_earlier_version(self.folder / DONE_FILE, "decoded")

    @property
    def timing(self) -> dict[str, float] | None:
        """`audio_s` and `compute_s`; None if decoding was not timed."""
        path = self.folder / TIMING_FILE
        return _read_timing(path) if path.exists() else None

    def score(
        self, dump: Path, cleaning: str | None = None, *, raw_references: bool = False
    ) -> Scores:
        """Score against the references of the set.

        Args:
            dump: `dump/raw`.
            cleaning: how text becomes phones; None: the policy the set was made with.
            raw_references: phones are scored against IPA as the corpus has it.

        Raises:
            DecodedError: no such task, references that are missing, or words whose
                references have another text policy than the model writes.
            ScoreError: not the utterances of the set.
        """
        if self.is_of_earlier_version:
            log.warning("%s: of an earlier version; run stage 12 again", self.folder)
        truth = DumpSet(dump / self.set_name)
        ref = truth.references(self.writes, raw=raw_references)
        if DECODED_TASKS[self.task].needs_text:
            ref = truth.with_text(ref)
        records = self.records()
        if n_unread := sum("error" in record for record in records):
            log.warning(
                "%s: %d of %d recordings could not be read and count as empty outputs",
                *(self.folder, n_unread, len(records)),
            )
        hyp = {record["utt_id"]: record["text"] for record in records}
        who = {"speakers": truth.speakers}
        if self.writes == LANGUAGE:
            likeliest = None
            heard = [r for r in records if "error" not in r]
            if heard and all("languages" in record for record in heard):
                likeliest = {r["utt_id"]: [*r.get("languages", ())] for r in records}
            return score_lid(hyp=hyp, ref=ref, likeliest=likeliest, **who)
        who["langs"] = truth.langs
        if self.writes == TEXT:
            policy = truth.text_policy
            self._check_text_policy(truth.folder, policy)
            return score_text(hyp=hyp, ref=ref, text_policy=policy, **who)
        cleaning = cleaning or truth.normaliser["policy"]
        return score_phones(hyp=hyp, ref=ref, cleaning=cleaning, **who)

    def _check_text_policy(self, folder: Path, policy: str) -> None:
        """A perfect output in another spelling than the references' is no error."""
        record = self.folder.parents[2] / NORMALISER_FILE
        if not record.exists():
            return
        written = read_json(record, "restore it").get("text_policy")
        if written in TEXT_POLICIES and written != policy:
            raise DecodedError(
                f"{self.folder}: the model writes text by policy {written}, the "
                f"references of {folder} are by {policy}; make the set as the model "
                f"writes, ./run.sh --stage 4 --stop_stage 4 --text_policy {written} "
                f"--dump {folder.parent}_{written}, and decode and score with that dump"
            )


def _read_timing(path: Path) -> dict[str, float]:
    timing = read_json(path, "run stage 12 again", keys=("audio_s", "compute_s"))
    for key in ("audio_s", "compute_s"):
        if not isinstance(timing[key], int | float):
            raise DecodedError(f"{path}: {key} is no number; run stage 12 again")
    return timing


def decoded_sets(
    folder: Path, set_names: Collection[str] | None = None
) -> list[DecodedSet]:
    """Everything that was decoded, in order of place.

    Args:
        folder: an experiment, or the folder of a profile in it.
        set_names: only these sets; None: all.

    Raises:
        DecodedError: a profile that changed left two decodings of a task of a set.
    """
    folder = Path(folder)
    hyp_files = sorted(folder.glob(f"*/*/*/{HYP_FILE}")) or sorted(
        folder.glob(f"*/*/{HYP_FILE}")
    )
    decoded = [DecodedSet(path.parent) for path in hyp_files]
    decoded = [d for d in decoded if set_names is None or d.set_name in set_names]
    for before, after in pairwise(decoded):
        if (before.folder.parent, before.task) == (after.folder.parent, after.task):
            raise DecodedError(
                f"{before.folder} and {after.folder} are of one task, which a profile "
                "decodes in one way: remove the one of its earlier settings"
            )
    return decoded
