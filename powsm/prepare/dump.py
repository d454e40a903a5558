"""Stage 4: `data/<set>` -> `dump/raw/<set>`, filtered, normalised, four examples each.

Chunks of utterances go through the filters, the normaliser and the task formatter in
any number of processes; their parts are joined in order into a hidden folder that takes
the set's name when it is complete. So a set is there whole or not at all, and the
same for any number of processes.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from powsm.errors import PowsmError
from powsm.files.chunks import Chunk, map_in_order, plan_chunks, read_rows
from powsm.files.current import contents, is_current, states, write_record
from powsm.files.datadir import (
    EXAMPLE_FILES,
    NORMALISER_FILE,
    RAW_REFERENCES,
    DataDirError,
    write_kaldi_speakers,
)
from powsm.files.lock import owned
from powsm.files.whole import atomic_folder, write_json
from powsm.phones.unknown import MAX_UNKNOWN_RATE, Unknown, judge_unknown
from powsm.prepare.filters import (
    DROPS_FILE,
    LIMITS,
    Counts,
    Limits,
    audio_drop_reason,
)
from powsm.prepare.judge import (
    LABELS,
    human_corpora,
    judge,
    label_files,
    labels_of_set,
    normaliser_of,
)
from powsm.prepare.subset import SUBSET_HOURS, Subset
from powsm.tasks import TASKS, Example, examples

DONE_FILE = "prepare.done.json"
# keyed by utt_id, for dev and test sets
REFERENCE_FILES = ("ref.ipa", RAW_REFERENCES, "ref.text")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Everything but the input that decides what stage 4 writes."""

    policy: str = "strict"
    text_policy: str = "powsm_fix"
    limits: Limits = field(default_factory=Limits)
    max_unknown_rate: float = MAX_UNKNOWN_RATE
    subset: str | None = None
    seed: int = 42
    tasks: tuple[str, ...] = tuple(TASKS)
    labels: str = "original"  # of train and dev
    human: tuple[str, ...] = ()  # corpora of the set, see `human_corpora`

    def __post_init__(self):
        if len(set(self.tasks)) < len(self.tasks):
            raise PowsmError(f"--tasks {','.join(self.tasks)}: one is named twice")

    def as_dict(self) -> dict[str, object]:
        values = asdict(self)
        values["limits"]["dropped_languages"] = sorted(self.limits.dropped_languages)
        if self.limits.only_languages is not None:
            only = sorted(self.limits.only_languages)
            values["limits"]["only_languages"] = only
        values["tasks"] = sorted(self.tasks)
        if not self.human:
            del values["human"]
        return values


@dataclass
class Outcome:
    """What came of a chunk, or of a set."""

    counts: Counts = field(default_factory=Counts)
    unknown: Unknown = field(default_factory=Unknown)
    first_id: str = ""
    last_id: str = ""

    def follow(self, utt_id: str) -> None:
        """Note the next utterance, whose id must come after the last."""
        if self.last_id:
            _check_order(self.last_id, utt_id)
        else:
            self.first_id = utt_id
        self.last_id = utt_id

    def merge(self, other: "Outcome") -> None:
        self.counts.merge(other.counts)
        self.unknown.merge(other.unknown)


def prepare_set(
    data_dir: Path, dump_dir: Path, settings: Settings, nj: int = 1
) -> Outcome | None:
    """Write one set of `dump/raw`, or nothing when it is there already.

    Args:
        data_dir: `data/<set>` of stage 1; the name of the folder is the set's.
        dump_dir: `dump/raw/<set>`; replaced as a whole.
        settings: what to keep and how to write it.
        nj: processes.

    Returns:
        Counts, or None when the same input and settings made what is there.

    Raises:
        DataDirError: the input breaks the rules of a data directory, changes meanwhile,
            or no utterance is left.
        OwnedError: another process is writing this set.
        UnknownSymbolsError: more than `max_unknown_rate` of a g2p set's IPA characters
            are unknown; what was in `dump_dir` before is untouched.
    """
    data_dir, dump_dir = Path(data_dir), Path(dump_dir)
    labels = labels_of_set(data_dir.name, settings.labels)
    settings = replace(settings, labels=labels, human=human_corpora(data_dir))
    files = label_files(labels)
    chunks = plan_chunks(data_dir, files)
    with owned(dump_dir):
        inputs = [data_dir / name for name in files]
        before = states(inputs)
        made_from = {
            "inputs": contents(inputs),
            "settings": settings.as_dict(),
            "normaliser": normaliser_of(settings.policy, True).version,
        }
        if is_current(dump_dir / DONE_FILE, "dump", made_from):
            return None
        subset = _choose_subset(chunks, data_dir.name, settings)
        with atomic_folder(dump_dir) as folder:
            outcome = _write_parts(chunks, folder, data_dir.name, settings, subset, nj)
            if states(inputs) != before:
                raise DataDirError(f"{data_dir}: changed while it was read; run again")
            if outcome.counts.kept == 0:
                raise DataDirError(
                    f"{data_dir}: no utterance left; {outcome.counts.summary()}. "
                    "Check the limits of stage 4 against data/report"
                )
            judge_unknown(
                outcome.unknown, data_dir / LABELS[labels], settings.max_unknown_rate
            )
            chosen = settings.subset if subset is not None else None
            of_set = replace(settings, subset=chosen)
            if data_dir.name.startswith("test"):  # whose utterances are all kept
                of_set = replace(of_set, limits=LIMITS)
            _write_records(folder, outcome, of_set)
            write_record(folder / DONE_FILE, "dump", made_from, folder.iterdir())
    return outcome


def _write_records(folder: Path, outcome: Outcome, settings: Settings) -> None:
    """What belongs to a set beside its examples."""
    write_kaldi_speakers(folder)
    write_json(
        folder / DROPS_FILE,
        {**outcome.counts.as_dict(), "unknown": outcome.unknown.as_dict()},
    )
    write_json(
        folder / NORMALISER_FILE,
        {
            "policy": settings.policy,
            "version": normaliser_of(settings.policy, True).version,
            "text_policy": settings.text_policy,
            # a model keeps this file, so that its row of a published table is known
            **({"subset": settings.subset} if settings.subset else {}),
            **({"limits": said} if (said := settings.limits.said()) else {}),
            **({"labels": "clean"} if settings.labels == "clean" else {}),
        },
    )


def _choose_subset(
    chunks: Sequence[Chunk], dset: str, settings: Settings
) -> Subset | None:
    """The subset that is asked for; None where that is the whole set."""
    if settings.subset is None or not dset.startswith("train"):
        return None
    hours = SUBSET_HOURS[settings.subset]

    def candidates() -> Iterator[tuple[str, str, int]]:
        for chunk in chunks:
            for row in read_rows(_columns(chunk, "utt2lang", "utt2num_samples")):
                utt_id, lang, n_samples = row[0], row[1], int(row[2])
                if not audio_drop_reason(
                    settings.limits, lang=lang, n_samples=n_samples
                ):
                    yield utt_id, lang, n_samples

    subset = Subset.choose(candidates(), hours, settings.seed)
    if subset.hours_there < hours:
        log.warning(
            "%s: there are %.1f h to choose from, so --subset %s takes all of them",
            *(dset, subset.hours_there, settings.subset),
        )
        return None
    return subset


def _columns(chunk: Chunk, *names: str) -> Chunk:
    return Chunk(
        chunk.index, tuple(part for part in chunk.ranges if part[0].name in names)
    )


def _write_parts(
    chunks: Sequence[Chunk],
    work_dir: Path,
    dset: str,
    settings: Settings,
    subset: Subset | None,
    nj: int,
) -> Outcome:
    work = partial(
        _prepare_chunk, work_dir=work_dir, dset=dset, settings=settings, subset=subset
    )
    total = Outcome()
    files = {name: open(work_dir / name, "wb") for name in _names_of_set(dset)}
    try:
        done = zip(chunks, map_in_order(work, chunks, nj), strict=True)
        bar = {"total": len(chunks), "unit": "chunk", "disable": None}
        for chunk, outcome in tqdm(done, desc=f"prepare {dset}", **bar):
            _check_order(total.last_id, outcome.first_id)
            total.merge(outcome)
            total.last_id = outcome.last_id
            for name, file in files.items():
                part = _part(work_dir, chunk, name)
                with open(part, "rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
                part.unlink()
        for name, file in files.items():
            file.flush()
            os.fsync(file.fileno())
            if (work_dir / name).stat().st_size != file.tell():
                raise DataDirError(
                    f"{work_dir / name}: holds other bytes than were written; did "
                    "something else write or remove it? Run stage 4 again"
                )
    finally:
        for file in files.values():
            file.close()
    return total


def _names_of_set(dset: str) -> tuple[str, ...]:
    return EXAMPLE_FILES + (() if dset.startswith("train") else REFERENCE_FILES)


def _part(work_dir: Path, chunk: Chunk, name: str) -> Path:
    return work_dir / f"{name}.{chunk.index:06d}"


def _check_order(previous: str, utt_id: str) -> None:
    if previous and utt_id <= previous:
        fault = "is given twice" if utt_id == previous else f"comes after {previous!r}"
        raise DataDirError(f"{utt_id!r} {fault}; rerun stage 1, which sorts and checks")
    if previous and utt_id.startswith(previous):
        raise DataDirError(
            f"{utt_id!r} begins with another id, {previous!r}: their examples would "
            "not stay together when sorted; rename one of them"
        )


def _prepare_chunk(
    chunk: Chunk,
    *,
    work_dir: Path,
    dset: str,
    settings: Settings,
    subset: Subset | None,
) -> Outcome:
    """Write the parts of one chunk; runs in a worker."""
    limits = settings.limits.for_set(dset)
    columns = {name: bytearray() for name in _names_of_set(dset)}
    outcome = Outcome()
    counts, unknown = outcome.counts, outcome.unknown
    for row in read_rows(chunk):
        utt_id, audio, raw_text, ipa, lang, speaker, samples = row
        outcome.follow(utt_id)
        n_samples = int(samples)
        if subset is not None and not subset.holds(utt_id, lang):
            counts.drop("not_in_subset", utt_id)
            continue
        # stage 1 leaves out what has no labels, but not what has no simplified ones
        reason = audio_drop_reason(limits, lang=lang, n_samples=n_samples)
        if reason := reason or (None if ipa else "no_ipa"):
            counts.drop(reason, utt_id)
            continue
        judged = judge(
            utt_id,
            ipa=ipa,
            text=raw_text,
            lang=lang,
            n_samples=n_samples,
            limits=limits,
            policy=settings.policy,
            text_policy=settings.text_policy,
            human=settings.human,
        )
        if not judged.is_human:
            unknown.add(utt_id, ipa, judged.segments)
        if judged.reason:
            counts.drop(judged.reason, utt_id)
            continue
        outputs = (judged.phones, judged.ctc_phones, judged.text)
        rows = examples(utt_id, lang, *outputs, settings.tasks)
        if not rows:
            counts.drop("no_text", utt_id)
            continue
        counts.keep(utt_id, n_samples, bool(judged.text))
        values = {
            "wav.scp": audio,
            "text.ctc": rows[0].text_ctc,
            "utt2lang": lang,
            "utt2speaker": speaker,
            "utt2num_samples": samples,
        }
        _add_examples(columns, rows, values)
        if "ref.ipa" in columns:
            references = (judged.reference(ipa), ipa, judged.text)
            for name, value in zip(REFERENCE_FILES, references, strict=True):
                columns[name] += _line(utt_id, value)
    for name, column in columns.items():
        _part(work_dir, chunk, name).write_bytes(column)
    return outcome


def _add_examples(
    columns: dict[str, bytearray], rows: Sequence[Example], values: Mapping[str, str]
) -> None:
    """Append the examples of an utterance to the files of its set.

    Args:
        columns: file name -> its lines so far.
        rows: the examples, one a task.
        values: file name -> what all of them have in common.
    """
    columns["text"] += "".join(f"{r.example_id} {r.text}\n" for r in rows).encode()
    prompts = (f"{row.example_id} {row.text_prev}\n" for row in rows)
    columns["text.prev"] += "".join(prompts).encode()
    ids = [row.example_id for row in rows]
    for name, value in values.items():
        tail = f" {value}\n"
        columns[name] += (tail.join(ids) + tail).encode()


def _line(key: str, value: str) -> bytes:
    return f"{key} {value}\n".encode() if value else f"{key}\n".encode()
