"""Tables of utterances: CSV, and datasets as Hugging Face's `save_to_disk` has them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from powsm.audio_files import printable
from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    numbered_rows,
    parse_json,
    row_fault,
)
from powsm.corpora.sources.item import Item, SourceError, joined, key_of, split_of
from powsm.files.text import open_text, read_text

# what a column may be called, capitals do not matter; the first that is there counts
COLUMNS = {
    "text": ("text", "sentence", "transcription", "transcript", "normalized_text"),
    "ipa": ("ipa", "phones"),
    "lang": ("lang", "language", "locale"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "split": ("split",),
    "start_s": ("start_s", "start"),
    "end_s": ("end_s", "end"),
    "key": ("id", "utt_id"),
}
DATASET, DATASETS = "dataset_info.json", "dataset_dict.json"
_SPLITS = ("train", "dev", "test")  # of Common Voice, by table
CLIPS = "clips"  # folder of Common Voice, whose tables name the files in it


def items_of_csv(source: Path, split: str | None = None) -> Iterator[Item | str]:
    """Rows of `path,text[,ipa,lang,speaker,split,start,end,id]`; `.tsv` has tabs.

    Paths are relative to the folder of the table, or to `clips` in it. Columns of a
    `.csv` may be apart by semicolons.

    Args:
        source: the table.
        split: of rows that do not say theirs.
    """
    delimiter = "\t" if source.suffix.lower() == ".tsv" else _delimiter(source)
    try:
        rows = numbered_rows(source, "path", delimiter=delimiter)
    except CorpusError as err:
        raise SourceError(str(err)) from err
    for number, row in rows:
        where = f"{printable(source)}:{number}"
        places = (source.parent / row["path"], source.parent / CLIPS / row["path"])
        path = next(filter(Path.is_file, places), places[0])
        if fault := row_fault(row):
            yield f"{where}: {fault}"
        elif not row["path"]:
            yield f"{where}: no path"
        elif not path.is_file():
            yield f"{where}: {printable(path)}: no such file"
        else:
            audio = os.path.join(".", path)
            yield _item(row, where, audio, key_of(path, source.parent), split)


def _delimiter(table: Path) -> str:
    """A comma, or the semicolon of spreadsheets where commas are in numbers."""
    with open_text(table) as file:
        head = file.readline()
    return ";" if ";" in head and "," not in head else ","


def tables_of_common_voice(source: Path) -> list[Path]:
    """The tables of its splits, or of what is validated without them.

    None where a folder is not one of its languages.
    """
    if not (source / CLIPS).is_dir():
        return []
    tables = [source / f"{name}.tsv" for name in (*_SPLITS, "validated")]
    there = [table for table in tables if table.is_file()]
    return [table for table in there if table.stem in _SPLITS] or there


def items_of_common_voice(source: Path) -> Iterator[Item | str]:
    """Rows of the tables of a language of Common Voice, in its splits."""
    for table in tables_of_common_voice(source):
        split = table.stem if table.stem in _SPLITS else None
        yield from items_of_csv(table, split)


def items_of_dataset(source: Path) -> Iterator[Item | str]:
    """Rows of a dataset, or of each split of one, with a column `audio` of bytes."""
    if (source / DATASETS).is_file():
        names = _json(source / DATASETS).get("splits", [])
        for name in map(str, names):
            yield from _items_of_split(source / name, split_of([name]))
    else:
        yield from _items_of_split(source, None)


def _items_of_split(folder: Path, split: str | None) -> Iterator[Item | str]:
    import pyarrow as pa

    files = _json(folder / "state.json").get("_data_files", [])
    n_rows = 0
    for name in (str(row["filename"]) for row in files):
        path = folder / Path(name).name
        try:
            with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as batches:
                for batch in batches:
                    for row in batch.to_pylist():
                        n_rows += 1
                        yield _row(row, f"{printable(path)}: row {n_rows}", split)
        except (OSError, pa.ArrowException) as err:
            raise SourceError(f"{printable(path)}: no Arrow stream ({err})") from err


def _row(row: Mapping, where: str, split: str | None) -> Item | str:
    audio = row.get("audio")
    if not isinstance(audio, Mapping):
        return f"{where}: no column audio of files; found {' '.join(row)}"
    name = Path(str(audio.get("path") or where.rpartition(" ")[2]))
    if audio.get("bytes"):
        return _item(row, where, audio["bytes"], name.stem, split)
    if not name.is_file():
        return f"{where}: neither bytes of audio nor the file {printable(name)}"
    return _item(row, where, os.path.join(".", name), name.stem, split)


def _item(
    row: Mapping, where: str, audio: str | bytes, key: str, split: str | None
) -> Item | str:
    """The item of a row, by what its columns are called."""
    row = {name.strip().casefold(): value for name, value in row.items()}
    said: dict[str, str | None] = {}
    for field, names in COLUMNS.items():
        values = [row[name] for name in names if row.get(name) not in (None, "", [])]
        said[field] = joined(values[0]) if values else None
    stretch: dict[str, float | None] = {}
    for field in ("start_s", "end_s"):
        value = said.pop(field)
        try:
            stretch[field] = None if value is None else float(value)
        except ValueError:
            return f"{where}: {field} {value!r}, expected seconds"
    own = said.pop("split")
    if own is not None and split_of([own]) is None:
        return f"{where}: split {own!r}, expected train, dev or test"
    return Item(
        said.pop("key") or key,
        where,
        audio,
        **stretch,
        text=said.pop("text") or "",
        split=split if own is None else split_of([own]),
        **said,
    )


def _json(path: Path) -> Mapping:
    try:
        value = parse_json(read_text(path), path)
    except OSError as err:
        raise SourceError(
            f"{printable(path)}: cannot be read ({err.strerror})"
        ) from err
    except CorpusError as err:
        raise SourceError(str(err)) from err
    if not isinstance(value, Mapping):
        raise SourceError(f"{printable(path)}: expected a JSON object")
    return value
