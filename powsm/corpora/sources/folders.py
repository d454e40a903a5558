"""Folders of recordings with what is said beside each: a text, a TextGrid or an EAF."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from powsm.audio_files import printable, recordings_in
from powsm.corpora.sources.item import Item, key_of, split_of
from powsm.corpora.tiers import TIER_ENDINGS, TierError, read_stretches
from powsm.files.text import TextFileError, read_text

log = logging.getLogger(__name__)

_TEXTS = (".txt", ".lab")
_IPA = ".ipa"


def items_with_texts(source: Path) -> Iterator[Item | str]:
    """Recordings with NAME.txt or NAME.lab, and NAME.ipa where it is there."""
    for path in recordings_in(source):
        texts = [path.with_suffix(ending) for ending in _TEXTS]
        text_file = next((file for file in texts if file.is_file()), None)
        ipa_file = path.with_suffix(_IPA)
        if text_file is None and not ipa_file.is_file():
            tiers = (path.with_suffix(ending) for ending in TIER_ENDINGS)
            there = [file.name for file in tiers if file.is_file()]
            hint = f"; --tier says which tier of {there[0]} is read" if there else ""
            yield f"{printable(path)}: no {texts[0].name} beside it{hint}"
            continue
        try:
            text = read_text(text_file) if text_file else ""
            ipa = read_text(ipa_file) if ipa_file.is_file() else None
        except TextFileError as err:
            yield str(err)
            continue
        yield Item(key_of(path, source), **_about(path, source), text=text, ipa=ipa)


def items_with_tiers(
    source: Path, tier: str, ipa_tier: str | None = None
) -> Iterator[Item | str]:
    """Each stretch of a tier of NAME.TextGrid or NAME.eaf beside the recordings.

    Args:
        tier: of words.
        ipa_tier: whose labels within a stretch, by their middle, are its IPA.
    """
    n_labels = 0
    outside: dict[str, int] = {}  # labels in no segment, by file
    for path in recordings_in(source):
        files = [path.with_suffix(ending) for ending in TIER_ENDINGS]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            yield f"{printable(path)}: no TextGrid or EAF beside it"
            continue
        try:
            _, stretches = read_stretches(file, tier)
            _, labels = read_stretches(file, ipa_tier) if ipa_tier else ("", [])
        except TierError as err:
            yield str(err)
            continue
        if not stretches:
            yield f"{printable(file)}: tier {tier} holds no text"
        key, about = key_of(path, source), _about(path, source)
        about["speaker"] = about["speaker"] or key  # of all stretches the same
        used: set[int] = set()
        for number, stretch in enumerate(stretches, 1):
            inside = [
                place
                for place, label in enumerate(labels)
                if stretch.start_s <= (label.start_s + label.end_s) / 2 < stretch.end_s
            ]
            used.update(inside)
            yield Item(
                f"{key}-{number:04d}" if len(stretches) > 1 else key,
                **about | {"where": f"{printable(file)}: {stretch.start_s:.3f} s"},
                start_s=stretch.start_s,
                end_s=stretch.end_s,
                text=stretch.label,
                ipa=" ".join(labels[i].label for i in inside) if ipa_tier else None,
            )
        n_labels += len(labels)
        if len(used) < len(labels):
            outside[printable(file)] = len(labels) - len(used)
    if outside:
        log.warning(
            "%d of %d labels of tier %s are in no segment of tier %s, and are left "
            "out: in %d files, such as %s",
            *(sum(outside.values()), n_labels, ipa_tier, tier),
            *(len(outside), next(iter(outside))),
        )


def _about(path: Path, source: Path) -> dict:
    """The folder of a recording names its speaker, as many have it."""
    parts = path.relative_to(source).parts[:-1]
    split = split_of(parts[:1])
    speaker = parts[-1] if parts and split_of(parts[-1:]) is None else None
    # a name of the form of a place in an archive is a name here
    audio = os.path.join(".", path)
    return {
        "where": printable(path),
        "audio": audio,
        "speaker": speaker,
        "split": split,
    }
