"""Stage 1, second half: the parts of a set -> its data directory, in one pass.

Memory depends on the number of parts that are open at a time, not on the corpus.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Self

from tqdm import tqdm

from powsm.audio import SAMPLE_RATE
from powsm.corpora.shar import Shard, ShardError, is_imported_human
from powsm.corpora.table import set_name
from powsm.files.current import is_current, warn_of_former, write_record
from powsm.files.datadir import (
    CLEAN_LABELS,
    KALDI_SPEAKERS,
    UTTERANCE_FILES,
    write_kaldi_speakers,
)
from powsm.files.lock import owned
from powsm.files.sort import merge_sorted
from powsm.files.whole import write_json
from powsm.prepare.shards import PARTS, UNPACKED, Part, part_path

SUMMARY = "prepare.json"
_FILES = (*UTTERANCE_FILES, CLEAN_LABELS, *KALDI_SPEAKERS)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetSummary:
    """Counts of a merged set or of one corpus in it; stored in `prepare.json`."""

    kept: int
    of: int
    n_samples: int
    n_partly_labelled: int
    dropped: dict[str, int]
    unpacked_bytes: int

    @classmethod
    def of_parts(cls, parts: Iterable[Part]) -> Self:
        """The sum of parts."""
        kept = n_samples = n_partly_labelled = unpacked_bytes = 0
        dropped: Counter[str] = Counter()
        for part in parts:
            kept += part.n_utts
            n_samples += part.n_samples
            n_partly_labelled += part.n_partly_labelled
            unpacked_bytes += part.n_unpacked_bytes
            dropped.update(part.drops)
        return cls(
            kept=kept,
            of=kept + dropped.total(),
            n_samples=n_samples,
            n_partly_labelled=n_partly_labelled,
            dropped=dict(sorted(dropped.items())),
            unpacked_bytes=unpacked_bytes,
        )

    def __str__(self) -> str:
        reasons = " ".join(f"{reason}={n}" for reason, n in self.dropped.items())
        hours = self.n_samples / SAMPLE_RATE / 3600
        return (
            f"kept {self.kept:,} of {self.of:,}"
            + (f" ({reasons})" if reasons else "")
            + f", {hours:,.2f} h"
        )


def merge_parts(parts: Mapping[Shard, Part], data: Path) -> dict[str, SetSummary]:
    """Merge the parts of each set into its data directory, unless that is up to date.

    Returns:
        Set name -> what it holds.

    Raises:
        OwnedError: another process is at stage 1 or 3 of this folder.
        ShardError: an utt_id that two shards share, or a set without an utterance.
    """
    data = Path(data)
    with owned(data / PARTS):
        sweep_parts(data)
        return _merge_parts(parts, data)


def sweep_parts(data: Path) -> None:
    """Remove what killed runs left below `data/.parts` and `data/unpacked`.

    Only for who owns `data/.parts` alone.
    """
    for folder in (data / PARTS, data / UNPACKED):
        for path in folder.rglob(".*"):  # nothing that is whole is hidden there
            path.unlink()
    for scratch in (data / PARTS).glob("*.merging*"):
        shutil.rmtree(scratch, ignore_errors=True)


def _merge_parts(parts: Mapping[Shard, Part], data: Path) -> dict[str, SetSummary]:
    shards_of_set: dict[str, list[Shard]] = {}
    for shard in sorted(parts):
        shards_of_set.setdefault(set_name(shard.corpus, shard.split), []).append(shard)
    summaries = {}
    for name, shards in sorted(shards_of_set.items()):
        summary = SetSummary.of_parts(parts[shard] for shard in shards)
        bad = [shard for shard in shards if parts[shard].error is not None]
        if summary.kept == 0:
            raise ShardError(
                f"set {name}: no utterance left, {summary}; {len(bad)} of "
                f"{len(shards)} shards are unusable; mend them, or remove their folder"
            )
        record = _record(name, summary, shards, parts)
        made_from = {"parts": _digest([[s.name, asdict(parts[s])] for s in shards])}
        if "human" in record:
            made_from["human"] = record["human"]
        with owned(data / name):  # stage 3 writes there as well
            done = data / PARTS / f"{name}.merged"
            files = [*_FILES, SUMMARY]
            is_there = all((data / name / file).is_file() for file in files)
            if not (is_there and is_current(done, "set", made_from)):
                done.unlink(missing_ok=True)
                usable = [shard for shard in shards if parts[shard].error is None]
                _merge_set(name, [part_path(s, data) for s in usable], record, data)
                write_record(done, "set", made_from)
        log.info("%s: %s, %d shards", name, summary, len(shards))
        if summary.n_partly_labelled:
            log.warning(
                "%s: %s of them are longer than their supervision and taken whole: "
                "what is said in the rest has no label; write shards of cuts that end "
                "with it (lhotse: trim_to_supervisions)",
                *(name, f"{summary.n_partly_labelled:,}"),
            )
        if summary.unpacked_bytes:
            log.info("%s: unpacked %s bytes", name, f"{summary.unpacked_bytes:,}")
        summaries[name] = summary
    warn_of_former(data, SUMMARY, summaries, "no shard is of it now")
    if "train" in summaries and "dev" not in summaries:
        log.warning(
            "%s: a train and no dev, without which nothing is trained: no split of the "
            "corpora is called so",
            data,
        )
    return summaries


def _record(
    name: str, summary: SetSummary, shards: Sequence[Shard], parts: Mapping[Shard, Part]
) -> dict[str, object]:
    corpora = {
        corpus: asdict(SetSummary.of_parts(parts[shard] for shard in group))
        for corpus, group in groupby(shards, key=lambda shard: shard.corpus)
    }
    bad_shards = [
        {"shard": shard.name, "error": parts[shard].error}
        for shard in shards
        if parts[shard].error is not None
    ]
    human = sorted({shard.corpus for shard in shards if is_imported_human(shard)})
    return {
        "set": name,
        **({"human": human} if human else {}),  # corpora that people transcribed
        **asdict(summary),
        "n_shards": len(shards),
        "bad_shards": bad_shards,
        "corpora": corpora,
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _merge_set(
    name: str, paths: Sequence[Path], record: dict[str, object], data: Path
) -> None:
    scratch = Path(tempfile.mkdtemp(dir=data / PARTS, prefix=f"{name}.merging-"))
    try:
        _write_columns(name, merge_sorted(paths, scratch), record["kept"], scratch)
        write_kaldi_speakers(scratch)
        write_json(scratch / SUMMARY, record, indent=2)
        target = data / name
        target.mkdir(parents=True, exist_ok=True)
        (target / SUMMARY).unlink(
            missing_ok=True
        )  # last to come back: then all is there
        for file_name in (*_FILES, SUMMARY):
            with open(scratch / file_name, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(scratch / file_name, target / file_name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_columns(
    name: str, merged: Iterable[bytes], n_utts: int, folder: Path
) -> None:
    """Write the files of a data directory from the lines of its parts, in order."""
    with ExitStack() as stack:
        # in the order of the fields of a part's line
        columns = [
            stack.enter_context(open(folder / file, "wb"))
            for file in (*UTTERANCE_FILES, CLEAN_LABELS)
        ]
        previous, previous_audio = b"", b""
        n_lines = 0
        for line in tqdm(merged, desc=name, total=n_utts, unit="utt", disable=None):
            n_lines += 1
            utt_id, *values = line[:-1].split(b"\t")
            if utt_id == previous:
                raise ShardError(
                    f"set {name}: utt_id {utt_id.decode()} is in both "
                    f"{previous_audio.decode()} and {values[0].decode()}; cut ids must "
                    "differ within a corpus, set and language"
                )
            previous, previous_audio = utt_id, values[0]
            for column, value in zip(columns, values, strict=True):
                column.write(b"%b %b\n" % (utt_id, value) if value else utt_id + b"\n")
    if n_lines != n_utts:
        raise ShardError(
            f"set {name}: the parts hold {n_lines:,} utterances, their records say "
            f"{n_utts:,}; remove {PARTS} and run stage 1 again"
        )
