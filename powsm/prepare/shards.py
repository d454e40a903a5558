"""Stage 1: shards -> sorted part files -> merged data directories.

Each shard becomes one sorted part file under `data/.parts`, with a marker that holds a
hash of what went in, so a rerun does only what is missing or changed, and any number of
processes or machines can share the shards. Then the parts of a set are merged in one
pass. Nothing depends on the order in which shards were done, and memory depends on the
size of a shard, not on that of the corpus.
"""

import gzip
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Self

from tqdm import tqdm

from powsm.audio import SAMPLE_RATE
from powsm.corpora.shar import Shard, ShardError, read_shard
from powsm.corpora.table import set_name
from powsm.corpora.tarindex import compression_of
from powsm.files.chunks import map_in_order
from powsm.files.datadir import UTTERANCE_FILES
from powsm.files.sort import merge_sorted, write_spk2utt
from powsm.files.whole import atomic_write, sha256_file

log = logging.getLogger(__name__)

SUMMARY = "prepare.json"
_COPY_BYTES = 1 << 20
# Of what a part holds and how; a higher number makes all parts anew.
_VERSION = 1


@dataclass(frozen=True)
class Part:
    """What came of one shard; stored as the marker beside its part file.

    Attributes:
        inputs: hash of the shard's files, their places, and the version of a part.
        n_utts: utterances kept, lines of the part file.
        n_samples: of the kept ones.
        drops: reason -> cuts left out.
        n_unpacked_bytes: size of the plain copy made of a compressed tar file, or 0.
        error: why the shard cannot be used; None if it can.
    """

    inputs: str
    n_utts: int = 0
    n_samples: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    n_unpacked_bytes: int = 0
    error: str | None = None


@dataclass(frozen=True)
class SetSummary:
    """Counts of a merged set or of one corpus in it; stored in `prepare.json`."""

    kept: int
    of: int
    n_samples: int
    dropped: dict[str, int]
    unpacked_bytes: int

    @classmethod
    def of_parts(cls, parts: Iterable[Part]) -> Self:
        """The sum of parts."""
        kept = n_samples = unpacked_bytes = 0
        dropped: Counter[str] = Counter()
        for part in parts:
            kept += part.n_utts
            n_samples += part.n_samples
            unpacked_bytes += part.n_unpacked_bytes
            dropped.update(part.drops)
        return cls(
            kept=kept,
            of=kept + dropped.total(),
            n_samples=n_samples,
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


def make_parts(
    shards: Sequence[Shard], data: Path, *, nj: int = 1, skip_bad_shards: bool = False
) -> dict[Shard, Part]:
    """Make the part of every shard that has none yet, or whose input changed.

    Args:
        shards: from `find_shards`, all of them or a share.
        data: receives `.parts/`, and `unpacked/` if a tar file is compressed.
        nj: processes.
        skip_bad_shards: go on after a shard that cannot be used.

    Returns:
        The part of each shard, those that failed included.

    Raises:
        ShardError: the first shard that cannot be used; parts made so far stay.
    """
    parts = {}
    work = partial(_make_part, data=Path(data))
    results = map_in_order(work, shards, nj)
    with tqdm(total=len(shards), desc="stage 1", unit="shard", disable=None) as bar:
        for shard, part in zip(shards, results, strict=True):
            if part.error is not None:
                if not skip_bad_shards:
                    results.close()
                    raise ShardError(f"shard {shard.name}: {part.error}")
                log.warning("skipped shard %s: %s", shard.name, part.error)
            parts[shard] = part
            bar.update()
    return parts


def load_parts(
    shards: Sequence[Shard], data: Path, *, skip_bad_shards: bool = False
) -> dict[Shard, Part]:
    """The parts that other processes made of all shards.

    Raises:
        ShardError: a shard has no part, an outdated one, or cannot be used.
    """
    parts = {}
    for shard in shards:
        part = _finished_part(shard, Path(data))
        if part is None:
            raise ShardError(
                f"shard {shard.name}: has no part in {data}, or its input changed "
                "since; run stage 1 on it before merging"
            )
        if part.error is not None and not skip_bad_shards:
            raise ShardError(f"shard {shard.name}: {part.error}")
        parts[shard] = part
    return parts


def merge_parts(parts: Mapping[Shard, Part], data: Path) -> dict[str, SetSummary]:
    """Merge the parts of each set into its data directory, unless that is up to date.

    Returns:
        Set name -> what it holds.

    Raises:
        ShardError: an utt_id that two shards share, or a set without an utterance.
    """
    data = Path(data)
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
        inputs = hashlib.sha256(
            json.dumps([[s.name, asdict(parts[s])] for s in shards]).encode()
        ).hexdigest()
        marker = data / ".parts" / f"{name}.merged"
        files = [data / name / file for file in (*UTTERANCE_FILES, "spk2utt", SUMMARY)]
        is_current = marker.is_file() and marker.read_text().strip() == inputs
        if not (is_current and all(file.is_file() for file in files)):
            marker.unlink(missing_ok=True)
            record = _record(name, summary, shards, parts)
            usable = [shard for shard in shards if parts[shard].error is None]
            _merge_set(name, [_part_path(s, data) for s in usable], record, data)
            with atomic_write(marker) as file:
                file.write(inputs + "\n")
        log.info("%s: %s, %d shards", name, summary, len(shards))
        if summary.unpacked_bytes:
            log.info("%s: unpacked %s bytes", name, f"{summary.unpacked_bytes:,}")
        summaries[name] = summary
    _remove_leftovers(data)
    return summaries


def _record(
    name: str,
    summary: SetSummary,
    shards: Sequence[Shard],
    parts: Mapping[Shard, Part],
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
    return {
        "set": name,
        **asdict(summary),
        "n_shards": len(shards),
        "bad_shards": bad_shards,
        "corpora": corpora,
    }


# --- one shard -> one part


def _make_part(shard: Shard, data: Path) -> Part:
    done = _finished_part(shard, data)
    if done is not None and done.error is None:
        return done
    path = _part_path(shard, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    marker = path.with_suffix(".json")
    marker.unlink(missing_ok=True)
    inputs = _inputs_of(shard)
    try:
        plain, n_unpacked_bytes = _unpacked(shard, data)
        drops: Counter[str] = Counter()
        lines = []
        n_samples = 0
        for utterance in read_shard(plain, drops):
            n_samples += utterance.n_samples
            fields = (
                utterance.utt_id,
                utterance.audio,
                utterance.text,
                utterance.ipa,
                utterance.lang,
                utterance.speaker,
                str(utterance.n_samples),
            )
            lines.append(("\t".join(fields) + "\n").encode("utf-8"))
        lines.sort()
        with atomic_write(path, "wb") as file:
            file.writelines(lines)
        part = Part(
            inputs=inputs,
            n_utts=len(lines),
            n_samples=n_samples,
            drops=dict(sorted(drops.items())),
            n_unpacked_bytes=n_unpacked_bytes,
        )
    except ShardError as err:
        path.unlink(missing_ok=True)
        part = Part(inputs=inputs, error=str(err))
    with atomic_write(marker) as file:
        json.dump(asdict(part), file, ensure_ascii=False)
        file.write("\n")
    return part


def _finished_part(shard: Shard, data: Path) -> Part | None:
    """What the marker of a shard says, if it speaks of the shard as it is now."""
    path = _part_path(shard, data)
    try:
        part = Part(**json.loads(path.with_suffix(".json").read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    files = [path] if part.error is None else []
    if part.n_unpacked_bytes:
        files.append(_unpacked_path(shard, data))
    if not all(file.is_file() for file in files) or part.inputs != _inputs_of(shard):
        return None
    return part


def _part_path(shard: Shard, data: Path) -> Path:
    return data / ".parts" / f"{shard.name}.tsv"


def _unpacked_path(shard: Shard, data: Path) -> Path:
    return data / "unpacked" / f"{shard.name}.tar"


def _inputs_of(shard: Shard) -> str:
    """Cuts by content; the tar file, up to gigabytes of audio, by size and date."""
    status = shard.recording.stat()
    digest = hashlib.sha256(f"parts {_VERSION}\0".encode())
    for value in (
        shard.cuts,
        sha256_file(shard.cuts),
        shard.recording,
        status.st_size,
        status.st_mtime_ns,
    ):
        digest.update(f"{value}\0".encode())
    return digest.hexdigest()


def _unpacked(shard: Shard, data: Path) -> tuple[Shard, int]:
    """The shard with a plain tar file, and the bytes written to make it one."""
    if compression_of(shard.recording) != "gzip":
        return shard, 0  # another compression is reported by the reader
    source, target = shard.recording, _unpacked_path(shard, data)
    try:
        # lhotse compresses a `.tar.gz` twice, so one round may not be enough
        while compression_of(source) == "gzip":
            with gzip.open(source, "rb") as packed, atomic_write(target, "wb") as file:
                shutil.copyfileobj(packed, file, _COPY_BYTES)
            source = target
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        raise ShardError(
            f"{shard.recording}: cut off or damaged ({err}); fetch the file again"
        ) from err
    return replace(shard, recording=target), target.stat().st_size


# --- many parts -> one data directory


def _merge_set(
    name: str, paths: Sequence[Path], record: dict[str, object], data: Path
) -> None:
    scratch = data / ".parts" / f"{name}.merging"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    with ExitStack() as stack:
        # in the order of the fields of a part's line
        columns = [
            stack.enter_context(open(scratch / file, "wb"))
            for file in ("wav.scp", "text", "text.ipa", "utt2lang", "utt2spk")
        ]
        lengths = stack.enter_context(open(scratch / "utt2num_samples", "wb"))
        columns.append(lengths)
        previous, previous_audio = b"", b""
        merged = merge_sorted(paths, scratch)
        total = record["kept"]
        for line in tqdm(merged, desc=name, total=total, unit="utt", disable=None):
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
    write_spk2utt(scratch / "utt2spk", scratch / "spk2utt")
    summary = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    (scratch / SUMMARY).write_text(summary, encoding="utf-8")
    target = data / name
    target.mkdir(parents=True, exist_ok=True)
    (target / SUMMARY).unlink(missing_ok=True)  # last to come back: then all is there
    for file in (*UTTERANCE_FILES, "spk2utt", SUMMARY):
        with open(scratch / file, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(scratch / file, target / file)
    shutil.rmtree(scratch)


def _remove_leftovers(data: Path) -> None:
    """Temporary files of runs that were killed; nobody writes parts during a merge."""
    for path in (data / ".parts").rglob(".*"):
        path.unlink()
