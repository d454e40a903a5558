"""Utterances by manifests: Kaldi folders, and those of lhotse."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from powsm.audio_files import printable
from powsm.corpora.sources.item import Item, SourceError, joined, split_of
from powsm.files.text import open_text

WAV_SCP = "wav.scp"
LHOTSE = re.compile(r"(.*?)(cuts|supervisions)(.*)\.jsonl(\.gz)?")


def items_of_kaldi(source: Path) -> Iterator[Item | str]:
    """Utterances of `wav.scp`, or of `segments`, with `text` and what else is there.

    `text.ipa` holds IPA, `utt2lang` languages, `utt2speaker` or `utt2spk` speakers.
    Below a folder without `wav.scp` each folder with one is a part: train, dev or test
    by its name.
    """
    own = (source / WAV_SCP).is_file()
    folders = [source] if own else sorted(p.parent for p in source.glob(f"*/{WAV_SCP}"))
    for folder in folders:
        split = None if own else split_of(re.split(r"[_-]", folder.name))
        yield from _of_folder(folder, source, split)


def _of_folder(folder: Path, source: Path, split: str | None) -> Iterator[Item | str]:
    faults: list[str] = []
    tables = {
        name: _table(folder / name, faults)
        for name in ("text", "text.ipa", "utt2lang", "segments")
    }
    speakers = _table(folder / "utt2speaker", faults)
    speakers = speakers or _table(folder / "utt2spk", faults)
    recordings = _table(folder / WAV_SCP, faults)
    stretches = tables["segments"] or {key: "" for key in recordings}
    for key, stretch in stretches.items():
        where = f"{printable(folder / WAV_SCP)}: {key}"
        about: dict = {}
        recording = key
        if tables["segments"]:
            try:
                recording, start, end = stretch.split()
                about = {"start_s": float(start), "end_s": float(end)}
            except ValueError:
                faults.append(f"{where}: segments has {stretch!r}")
                continue
        value = recordings.get(recording, "").strip()
        audio = _audio(value, folder, source)
        if audio is None:
            fault = f"{value!r} is no file here" if value else "no such recording"
            faults.append(f"{where}: {fault}; commands are not run, write the audio")
            continue
        yield Item(
            key,
            where,
            audio,
            **about,
            text=tables["text"].get(key, ""),
            ipa=tables["text.ipa"].get(key),
            lang=tables["utt2lang"].get(key),
            speaker=speakers.get(key),
            split=split,
        )
    listed = "segments" if tables["segments"] else WAV_SCP
    for name in ("text", "text.ipa"):
        for key in sorted(tables[name].keys() - stretches.keys()):
            yield f"{printable(folder / name)}: {key}: is not in {listed}"
    yield from faults


def _audio(value: str, folder: Path, source: Path) -> str | None:
    """The place that `wav.scp` names, from here, from the folder, or from above it."""
    path, _, offset = value.rpartition(".ark:")
    for base in (Path(), folder, source, source.parent):
        if path and offset.isdecimal() and (base / f"{path}.ark").is_file():
            return os.path.join(base, value)
        if value and (base / value).is_file():
            return os.path.join(".", base / value)
    return None


def _table(path: Path, faults: list[str]) -> dict[str, str]:
    """Key -> the rest of its line; nothing where there is no such file."""
    table: dict[str, str] = {}
    if not path.is_file():
        return table
    with open_text(path, newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            key, _, value = line.strip().replace("\t", " ", 1).partition(" ")
            if not key:
                faults.append(f"{printable(path)}:{number}: empty line")
            elif key in table:
                faults.append(f"{printable(path)}:{number}: {key} is given twice")
            else:
                table[key] = value.strip()
    return table


def items_of_lhotse(source: Path) -> Iterator[Item | str]:
    """Supervisions of lhotse: of `*cuts*.jsonl`, or beside `*recordings*.jsonl`.

    The split is in the name of the file: `mine_cuts_dev.jsonl.gz`. The text is a
    supervision's own; `custom.ipa`, `custom.original` or `custom.phones` is its IPA,
    and `custom.orthographic` its words where the text is IPA.
    """
    names = {path: LHOTSE.fullmatch(path.name) for path in sorted(source.iterdir())}
    kinds = {path: match for path, match in names.items() if match}
    has_cuts = any(match[2] == "cuts" for match in kinds.values())
    for path, match in kinds.items():
        if (match[2] == "cuts") is not has_cuts:
            continue
        after, before = (split_of(re.split(r"[._-]", match[n])) for n in (3, 1))
        split = after or before
        yield from _of_manifest(path, match, split)


def _of_manifest(path: Path, match: re.Match, split: str | None):
    from lhotse import CutSet, MonoCut, load_manifest  # imports torch

    try:
        cuts = load_manifest(path)
        if match[2] == "supervisions":
            name = f"{match[1]}recordings{match[3]}.jsonl{match[4] or ''}"
            cuts = CutSet.from_manifests(
                recordings=load_manifest(path.with_name(name)), supervisions=cuts
            )
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as err:
        raise SourceError(f"{printable(path)}: no manifest of lhotse ({err})") from err
    for cut in cuts:
        where = f"{printable(path)}: {cut.id}"
        if not isinstance(cut, MonoCut):
            yield f"{where}: a {type(cut).__name__}, expected cuts of one recording"
            continue
        audio = _audio_of(cut.recording, path.parent)
        if audio is None:
            yield f"{where}: its recording is no file here and not in memory"
            continue
        channels = cut.recording.sources[0].channels
        if cut.channel not in channels:
            yield f"{where}: its recording has no channel {cut.channel}"
            continue
        if changed := _changes(cut.recording):
            yield f"{where}: {changed} changes its recording; import it as it was"
            continue
        if not cut.supervisions:
            yield f"{where}: no supervision"
        for supervision in cut.supervisions:
            custom = supervision.custom or {}
            ipa = next(filter(None, map(custom.get, _IPA_FIELDS)), None)
            start = cut.start + supervision.start
            yield Item(
                supervision.id,
                where,
                audio,
                start,
                start + supervision.duration,
                channel=channels.index(cut.channel),
                text=joined(custom.get("orthographic") or supervision.text or ""),
                ipa=None if ipa is None else joined(ipa),
                lang=supervision.language,
                speaker=supervision.speaker,
                split=split,
            )


_IPA_FIELDS = ("ipa", "original", "phones")


def _changes(recording) -> str:
    """What lhotse would do to a recording as it reads it, but for another rate."""
    steps = [
        t if isinstance(t, dict) else t.to_dict() for t in recording.transforms or ()
    ]
    return " ".join(s["name"] for s in steps if s["name"] != "Resample")


def _audio_of(recording, folder: Path) -> str | bytes | None:
    """The one file of a recording, or its bytes."""
    if recording is None or len(recording.sources) != 1:
        return None
    (source,) = recording.sources
    if source.type == "memory":
        return source.source
    return _audio(str(source.source), folder, folder) if source.type == "file" else None
