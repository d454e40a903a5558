"""VoxAngeles: words in 95 languages from the UCLA Phonetics Lab Archive, audited.

Transcriptions are those of the column `updated`, checked against recordings and field
notes; the raw ones are kept beside them. PRiSM counts 5,445 utterances, 1.58 h; the
table has 5,446 rows.

Licence: CC BY-NC 4.0. https://github.com/pacscilab/voxangeles

Layout: `voxangeles_transcriptions.tsv` (columns `lang file raw ... updated`) and
`data/audited_aligned/<lang>.zip` with `<lang>/<file>.wav`, packed or unpacked.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    LeftOut,
    Segment,
    Written,
    read_table,
    write_segments,
)

_TABLE = "voxangeles_transcriptions.tsv"
_AUDIO = "audited_aligned"


def prepare_voxangeles(
    source: Path, out: Path, *, allow_incomplete: bool = False
) -> Written:
    """Write the set from the repository's folder."""
    left_out = LeftOut(allow_incomplete)
    return write_segments(out, _segments(Path(source), left_out), left_out)


def _segments(source: Path, left_out: LeftOut) -> Iterator[Segment]:
    tables = sorted(source.rglob(_TABLE))
    folders = [p for p in sorted(source.rglob(_AUDIO)) if p.is_dir()]
    if not tables or not folders:
        raise CorpusError(f"{source}: no {_TABLE} or no folder data/{_AUDIO}")
    audio = _find_audio(folders)
    rows = read_table(tables[0], "lang", "file", "raw", "updated", delimiter="\t")
    languages = {row["lang"] for row in rows}
    heard = {row["lang"] for row in rows if row["file"] in audio}
    left_out.miss(
        sorted(languages - heard),
        f"{source}: no audio of {len(languages - heard)} of {len(languages)} languages "
        f"(data/{_AUDIO}/<language>.zip)",
    )
    for name in sorted(audio.keys() - {row["file"] for row in rows}):
        left_out.add("no_transcript", name)
    for row in sorted(rows, key=lambda row: (row["lang"], row["file"])):
        place = audio.get(row["file"])
        if place is None:
            left_out.add("no_audio", row["file"])
            continue
        yield Segment(
            key=row["file"],
            audio=_read(*place) if isinstance(place, tuple) else place,
            ipa=row["updated"],
            raw=row["raw"],
            lang=row["lang"],
            speaker=row["file"].rpartition("-")[0],
        )


def _find_audio(folders: list[Path]) -> dict[str, Path | tuple[Path, str]]:
    """File name without ending -> the file, or an archive and the member's name."""
    audio: dict[str, Path | tuple[Path, str]] = {}
    for folder in folders:
        for archive in sorted(folder.glob("*.zip")):
            with _opened(archive) as members:
                for name in members.namelist():
                    path = Path(name)
                    if path.suffix.lower() == ".wav" and path.parts[0] != "__MACOSX":
                        audio.setdefault(path.stem, (archive, name))
        for path in sorted(folder.rglob("*.[wW][aA][vV]")):
            audio[path.stem] = path
    return audio


def _read(archive: Path, name: str) -> bytes:
    with _opened(archive) as members:
        return members.read(name)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as members:
            yield members
    except (zipfile.BadZipFile, zlib.error, EOFError) as err:
        raise CorpusError(
            f"{archive}: cut off or damaged ({err}); fetch it again"
        ) from err
