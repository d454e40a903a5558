"""Is it up to date? The only answer: a record of what was made, from what, and how.

A stage leaves a record beside what it made: its name and version, what went in, and
the sizes of what came out. Work is done again when one of them differs, and when a
file is missing or has another size. Programs are not compared, so a comment does not
make a corpus be read again: who changes what a stage writes raises its version here.
"""

import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from powsm.files.whole import sha256_file, write_whole

log = logging.getLogger(__name__)

# What each stage writes; a higher number makes everything of that stage anew.
VERSIONS = {
    "part": 3,  # stage 1: a shard's utterances; 2 has ipa_clean, 3 n_partly_labelled
    "set": 3,  # stage 1: a data directory; 2 has text.ipa_clean, 3 utt2speaker
    "audio": 1,  # stage 3: copies of audio
    "dump": 3,  # stage 4; 2 has ref.raw.ipa and nmt_nfkc, 3 utt2speaker
    "languages": 2,  # the part of a set in some languages
    "index": 3,  # where the utterances of a dump folder begin
    "tokens": 1,  # stage 5
    "decoded": 3,  # stage 12: what a profile says of a set; 3: phones where barred
    "aligned": 3,  # stage 12: when it was said; 2: bounds by sound changes, 3: lengths
    # stages that the shell looks after: see `powsm current`
    "stage 2": 1,  # the data report
    "stage 5": 2,  # vocabulary and weights of another model; 2 has phones_by_lang.json
    "stage 10": 1,  # statistics
    "stage 11": 1,  # a training
}


def warn_of_former(folder: Path, record: str, names: Collection[str], why: str) -> None:
    """Log the sets of a folder that an earlier run made, and this one does not.

    Args:
        record: the file that the stage leaves in a set.
        names: of the sets that it makes now.
    """
    sets = [path.parent for path in sorted(folder.glob(f"*/{record}"))]
    if former := [str(path) for path in sets if path.name not in names]:
        log.warning(
            "%s: of an earlier run, %s; the stages that follow take it all the same: "
            "remove what is not wanted",
            *(" ".join(former), why),
        )


def contents(files: Iterable[Path]) -> dict[str, str]:
    """Name -> SHA-256 of each file: for inputs that are small, or that move."""
    return {Path(file).name: sha256_file(file) for file in files}


def states(files: Iterable[Path]) -> dict[str, list[int]]:
    """Name -> [bytes, time of change in ns] of each file: for large inputs.

    Raises:
        FileNotFoundError: a file is missing.
    """
    status = {Path(file).name: Path(file).stat() for file in files}
    return {name: [s.st_size, s.st_mtime_ns] for name, s in status.items()}


def states_below(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Path -> [bytes, time of change in ns] of files, and of all in folders.

    Links are followed; hidden files and folders, and what is not there, are left out.
    """
    status = {path: path.stat() for top in paths for path in sorted(_files(Path(top)))}
    return {str(path): [s.st_size, s.st_mtime_ns] for path, s in status.items()}


def _files(top: Path) -> Iterator[Path]:
    if top.is_file():
        yield top
    for place, folders, files in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(place, name) for name in files if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def write_record(
    path: Path,
    stage: str,
    made_from: Mapping[str, object],
    outputs: Iterable[Path] = (),
    result: object = True,
) -> None:
    """Say that a stage's outputs are whole. To be written last.

    Args:
        path: the record.
        stage: a key of `VERSIONS`.
        made_from: everything that decides what the outputs hold, as JSON.
        outputs: files in or below the folder of the record.
        result: what `read_record` is to give back, as JSON.
    """
    sizes = {str(f.relative_to(path.parent)): f.stat().st_size for f in sorted(outputs)}
    write_whole(path, record_text(stage, made_from, sizes, result) + "\n")


def record_text(
    stage: str,
    made_from: Mapping[str, object],
    sizes: Mapping[str, int],
    result: object = True,
) -> str:
    """What `write_record` writes; `sizes` are those of the outputs by their names."""
    record = {**_key(stage, made_from), "outputs": sizes, "result": result}
    return json.dumps(record, ensure_ascii=False, indent=1)


def read_record(path: Path, stage: str, made_from: Mapping[str, object]) -> Any:
    """The result of a stage, if what it made is up to date.

    Returns:
        `result` as it was written; None when there is none, when the record is missing
        or damaged, another version or other inputs made it, or an output has changed.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if _key(record["stage"], record["made_from"], record["version"]) != _key(
            stage, made_from
        ):
            return None
        return record["result"] if has_sizes(path.parent, record["outputs"]) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def is_current(path: Path, stage: str, made_from: Mapping[str, object]) -> bool:
    """Whether what a stage made is up to date; its record holds a result of True."""
    return read_record(path, stage, made_from) is not None


def is_of_earlier_version(path: Path, stage: str) -> bool:
    """Whether a record is of what a stage wrote once, whatever its inputs are now."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record["stage"] == stage and record["version"] < VERSIONS[stage]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def has_sizes(folder: Path, sizes: Mapping[str, int]) -> bool:
    """Whether the files of a folder are there with the sizes they had."""
    try:
        return all((folder / name).stat().st_size == n for name, n in sizes.items())
    except FileNotFoundError:
        return False


def _key(
    stage: str, made_from: Mapping[str, object], version: int | None = None
) -> dict[str, object]:
    """All that must be equal, as JSON gives it back: a tuple becomes a list."""
    return {
        "stage": stage,
        "version": VERSIONS[stage] if version is None else version,
        "made_from": json.loads(json.dumps(made_from)),
    }
