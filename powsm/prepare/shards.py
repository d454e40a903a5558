"""Stage 1, first half: each shard becomes one sorted part file below `data/.parts`.

A part has a record of what went in, so a rerun does only what is missing or changed,
and any number of processes or machines can share the shards. Nothing depends on the
order in which they are done. `powsm.prepare.merge` makes sets of the parts.
"""

import gzip
import hashlib
import logging
import shutil
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from powsm.corpora.shar import Shard, ShardError, read_shard
from powsm.corpora.tarindex import compression_of
from powsm.files.chunks import map_in_order
from powsm.files.current import has_sizes, read_record, write_record
from powsm.files.lock import owned
from powsm.files.whole import atomic_write, sha256_file

PARTS = ".parts"  # folder in that of the sets
UNPACKED = "unpacked"  # folder in that of the sets, for plain copies of tar files
_COPY_BYTES = 1 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """What came of one shard; stored in the record beside its part file.

    Attributes:
        inputs: hash of the shard's files and their places.
        n_utts: utterances kept, lines of the part file.
        n_samples: of the kept ones.
        n_partly_labelled: utterances kept whose labels speak of a part of them.
        drops: reason -> cuts left out.
        n_unpacked_bytes: size of the plain copy made of a compressed tar file, or 0.
        error: why the shard cannot be used; None if it can.
    """

    inputs: str
    n_utts: int = 0
    n_samples: int = 0
    n_partly_labelled: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    n_unpacked_bytes: int = 0
    error: str | None = None


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
        OwnedError: another process is merging parts of this folder.
        ShardError: the first shard that cannot be used; parts made so far stay.
    """
    parts = {}
    work = partial(_make_part, data=Path(data))
    results = map_in_order(work, shards, nj)
    # shared, so that the tasks of a job array can work at once, but no merge
    with (
        owned(Path(data) / PARTS, shared=True),
        tqdm(total=len(shards), desc="stage 1", unit="shard", disable=None) as bar,
    ):
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


def part_path(shard: Shard, data: Path) -> Path:
    """The part file of a shard: tab-separated lines, sorted by utt_id."""
    return Path(data) / PARTS / f"{shard.name}.tsv"


def _make_part(shard: Shard, data: Path) -> Part:
    done = _finished_part(shard, data)
    if done is not None and done.error is None:
        return done
    path = part_path(shard, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = path.with_suffix(".json")
    record.unlink(missing_ok=True)
    inputs = _inputs_of(shard)
    try:
        plain, n_unpacked_bytes = _unpacked(shard, data)
        drops: Counter[str] = Counter()
        lines = []
        n_samples = n_partly_labelled = 0
        for utterance in read_shard(plain, drops):
            n_samples += utterance.n_samples
            n_partly_labelled += utterance.is_partly_labelled
            fields = (
                utterance.utt_id,
                utterance.audio,
                utterance.text,
                utterance.ipa,
                utterance.lang,
                utterance.speaker,
                str(utterance.n_samples),
                utterance.ipa_clean,
            )
            lines.append(("\t".join(fields) + "\n").encode("utf-8"))
        lines.sort()
        with atomic_write(path, "wb") as file:
            file.writelines(lines)
        part = Part(
            inputs=inputs,
            n_utts=len(lines),
            n_samples=n_samples,
            n_partly_labelled=n_partly_labelled,
            drops=dict(sorted(drops.items())),
            n_unpacked_bytes=n_unpacked_bytes,
        )
    except ShardError as err:
        path.unlink(missing_ok=True)
        part = Part(inputs=inputs, error=str(err))
    outputs = [path] if part.error is None else []
    write_record(record, "part", {"inputs": inputs}, outputs, asdict(part))
    return part


def _finished_part(shard: Shard, data: Path) -> Part | None:
    """What the record of a shard says, if it speaks of the shard as it is now."""
    record = part_path(shard, data).with_suffix(".json")
    if not record.is_file():
        return None  # the shard need not be read to know it
    made_from = {"inputs": _inputs_of(shard)}
    values = read_record(record, "part", made_from)
    if values is None:
        return None
    part = Part(**values)
    if part.n_unpacked_bytes:
        plain = _unpacked_path(shard, data)
        if not has_sizes(plain.parent, {plain.name: part.n_unpacked_bytes}):
            return None
    return part


def _unpacked_path(shard: Shard, data: Path) -> Path:
    return data / UNPACKED / f"{shard.name}.tar"


def _inputs_of(shard: Shard) -> str:
    """Cuts by content; the tar file, up to gigabytes of audio, by size and date."""
    status = shard.recording.stat()
    digest = hashlib.sha256()
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
