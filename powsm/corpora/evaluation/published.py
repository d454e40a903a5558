"""Copies of evaluation sets that others have published: Shar folders and Parquet files.

anyspeech (the authors of ZIPA) write Buckeye and L2-ARCTIC as Shar:
`cuts.NNNNNN.jsonl.gz` beside `recording.NNNNNN.tar`, with the IPA in the supervision's
`text` and the orthography in its `custom.orthographic`. KoelLabs write EpaDB,
SpeechOcean762 and DoReCo as Parquet files in `data/`, named `<split>-...`, with
columns `audio` (bytes), `ipa`, `text` and `speaker_code`.

Source: the scripts that write them, https://github.com/lingjzhu/zipa and
https://github.com/KoelLabs/ML (scripts/data_loaders/huggingface.py).
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    LeftOut,
    Segment,
    Written,
    parse_json,
    write_segments,
)
from powsm.corpora.tarindex import TarIndex
from powsm.files.audio_places import location_in_shard

_CUTS = "cuts.*.jsonl.gz"
_LANG = "eng"  # of all of them


def write_published_or(
    original: Callable[[Path, LeftOut], Iterator[Segment]],
    source: Path,
    out: Path,
    allow_incomplete: bool,
    max_duration_s: float | None = None,
) -> Written:
    """Write an English set from a published copy, or from the corpus as it was.

    Args:
        source: folder; what is looked for may lie deeper in it.

    Raises:
        CorpusError: no such folder, one that holds neither, or a file that is cut off
            or damaged.
        TarError: the same of a tar file.
    """
    source, left_out = Path(source), LeftOut(allow_incomplete)
    if not source.is_dir():
        raise CorpusError(f"{source}: no such folder")
    if shards := sorted(source.rglob(_CUTS)):
        segments = _from_shar(shards, left_out)
    elif tables := sorted(source.rglob("*.parquet")):
        segments = _from_parquet(tables, left_out)
    else:
        segments = original(source, left_out)
    return write_segments(out, segments, left_out, max_duration_s)


def _from_shar(shards: list[Path], left_out: LeftOut) -> Iterator[Segment]:
    for cuts in shards:
        recordings = cuts.with_name(
            cuts.name.replace("cuts.", "recording.").replace(".jsonl.gz", ".tar")
        )
        if not recordings.is_file():
            raise CorpusError(f"{cuts}: without {recordings.name}; fetch it again")
        try:
            with gzip.open(cuts, "rt", encoding="utf-8-sig") as lines:
                by_id = {
                    cut["id"]: cut for cut in (parse_json(line, cuts) for line in lines)
                }
        except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as err:
            raise CorpusError(
                f"{cuts}: cut off or damaged ({err}); fetch it again"
            ) from err
        with TarIndex(recordings) as members:
            for member in members:
                cut_id, _, extension = member.name.rpartition(".")
                if extension == "nodata":
                    left_out.add("no_audio", cut_id)
                    by_id.pop(cut_id, None)
                if extension in ("json", "nometa", "nodata"):
                    continue
                if cut_id not in by_id:
                    raise CorpusError(
                        f"{recordings}: {member.name!r} has no cut in {cuts.name}; the "
                        "two files do not belong together"
                    )
                supervisions = by_id.pop(cut_id).get("supervisions") or ()
                if len(supervisions) != 1:
                    raise CorpusError(
                        f"{cuts}: {cut_id} has {len(supervisions)} supervisions, "
                        "expected one"
                    )
                (supervision,) = supervisions
                custom = supervision.get("custom") or {}
                ipa = custom.get("original") or supervision.get("text") or ""
                yield Segment(
                    key=cut_id,
                    audio=location_in_shard(
                        recordings.resolve(), member.offset, member.size
                    ),
                    ipa=ipa,
                    raw=ipa,
                    lang=_LANG,
                    speaker=_name_of(
                        supervision.get("speaker"), cut_id.partition("_")[0]
                    ),
                    text=custom.get("orthographic") or "",
                )
        if by_id:
            raise CorpusError(
                f"{recordings}: no audio of {len(by_id)} cuts, such as "
                f"{next(iter(by_id))}; fetch it again"
            )


def _from_parquet(tables: list[Path], left_out: LeftOut) -> Iterator[Segment]:
    for path in tables:
        for number, row in enumerate(_rows_of(path)):
            key = f"{path.stem}-{number:05d}"
            if not row["audio"] or not row["audio"]["bytes"]:
                left_out.add("no_audio", key)
                continue
            yield Segment(
                key=key,
                audio=row["audio"]["bytes"],
                ipa=row["ipa"] or "",
                raw=row["ipa"] or "",
                lang=_LANG,
                speaker=_name_of(row.get("speaker_code"), key),
                text=row.get("text") or "",
            )


def _name_of(speaker: object, otherwise: str) -> str:
    """A speaker's name; 0 is one.

    >>> _name_of(0, "u1"), _name_of("", "u1"), _name_of(None, "u1")
    ('0', 'u1', 'u1')
    """
    return otherwise if speaker in (None, "") else str(speaker)


def _rows_of(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        file = pa.parquet.ParquetFile(path)
        if missing := {"audio", "ipa"} - set(file.schema_arrow.names):
            raise CorpusError(
                f"{path}: no column {' '.join(sorted(missing))}; found "
                f"{' '.join(file.schema_arrow.names)}"
            )
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as err:
        raise CorpusError(
            f"{path}: cut off or damaged ({err}); fetch it again"
        ) from err
