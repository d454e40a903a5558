"""A source as a corpus of our own: found out, checked, given IPA, split and written.

    bring(Path("my_folder"), "mine", Path("downloads"), Asked(lang="ita", g2p="espeak"))

All faults of a source are found before anything is written, and a corpus is there
whole or not at all, with `corpus.yaml`: what it was made from, and what is in it.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm import tqdm

from powsm.audio import SAMPLE_RATE, AudioError
from powsm.audio_files import printable
from powsm.corpora.small.espeak import EspeakError, text_to_ipa, version, voice_of
from powsm.corpora.small.split import split_prompts
from powsm.corpora.small.text_faults import text_key
from powsm.corpora.small.write_shar import Clip, write_corpus
from powsm.corpora.sources.folders import items_with_texts, items_with_tiers
from powsm.corpora.sources.item import Item, SourceError
from powsm.corpora.sources.manifests import (
    LHOTSE,
    WAV_SCP,
    items_of_kaldi,
    items_of_lhotse,
)
from powsm.corpora.sources.tables import (
    DATASET,
    DATASETS,
    items_of_common_voice,
    items_of_csv,
    items_of_dataset,
    tables_of_common_voice,
)
from powsm.corpora.table import ABOUT, CORPORA, SHAR_SUFFIX
from powsm.corpora.utterance import one_line, safe_id
from powsm.languages import lang_code

TIERS = "tiers"  # a kind of source
G2P = ("given", "espeak", "none")  # where IPA comes from; none: the texts are IPA

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")  # an _ would end it in utt_ids
_SHOWN = 100  # faults that are named
_SETS = ("train", "dev", "test")


@dataclass(frozen=True)
class Asked:
    """What is asked of an import.

    Attributes:
        lang: code or name of the language of utterances that do not say theirs.
        g2p: one of `G2P`.
        tier: of TextGrids and EAFs, with the words.
        ipa_tier: and with their IPA.
        split: put all into this one; None: as the source says, else by texts.
        seed: of the split by texts.
        human: people heard the recordings and wrote the IPA.
    """

    lang: str | None = None
    g2p: str = "given"
    tier: str | None = None
    ipa_tier: str | None = None
    split: str | None = None
    seed: int = 0
    human: bool = False


@dataclass(frozen=True)
class Brought:
    """What an import made.

    Attributes:
        folder: of the corpus.
        kind: of the source.
        hours: of speech, by split.
        n_utts: by split.
        languages: ISO 639-3.
    """

    folder: Path
    kind: str
    hours: dict[str, float]
    n_utts: dict[str, int]
    languages: tuple[str, ...]


def bring(source: Path, name: str, downloads: Path, asked: Asked) -> Brought:
    """Import a source as `downloads/<name>_shar`.

    Raises:
        SourceError: no such source, a name that cannot be one, or faults in the
            source, each of which is logged.
    """
    if not _NAME.fullmatch(name) or name in CORPORA:
        taken = " and not that of a known corpus" if name in CORPORA else ""
        raise SourceError(
            f"{name!r} cannot name a corpus: use letters, digits and -{taken}"
        )
    folder = downloads / f"{name}{SHAR_SUFFIX}"
    if folder.exists() and not (folder / ABOUT).is_file():
        raise SourceError(f"{folder}: is there and was not imported; take another name")
    kind, items = _items(source, asked)
    if asked.tier is not None and kind != TIERS:
        raise SourceError(f"--tier: not used, {printable(source)} is a {kind}")
    faults = _Faults(source)
    clips = _clips(items, asked, faults)
    faults.end()
    splits = _splits(clips, asked, source)
    _warn_of_voices(splits)
    hours = {
        split: sum(clip.duration_s for _, clip in part) / 3600
        for split, part in splits.items()
    }
    languages = tuple(sorted({clip.language for _, clip in clips}))
    about = {
        "name": name,
        "labels": "human" if asked.human else "g2p",
        "languages": list(languages),
        "hours": {split: round(value, 4) for split, value in hours.items()},
        "utterances": {split: len(part) for split, part in splits.items()},
        "source": kind,
        "asked": asdict(asked) | {"espeak-ng": version()},
    }
    write_corpus(
        folder,
        {split: [clip for _, clip in part] for split, part in splits.items()},
        about["asked"],
        about,
    )
    n_utts = {split: len(part) for split, part in splits.items()}
    return Brought(folder, kind, hours, n_utts, languages)


def _items(source: Path, asked: Asked) -> tuple[str, Iterator[Item | str]]:
    """What kind of source it is, and its utterances and faults."""
    if source.is_file() and source.suffix.lower() in (".csv", ".tsv"):
        return "CSV", items_of_csv(source)
    if not source.is_dir():
        what = "expected .csv, .tsv or a folder" if source.exists() else "is missing"
        raise SourceError(f"{printable(source)}: {what}")
    names = {path.name for path in source.iterdir()}
    if WAV_SCP in names or any(source.glob(f"*/{WAV_SCP}")):
        return "Kaldi folder", items_of_kaldi(source)
    if {DATASET, DATASETS} & names:
        return "Hugging Face dataset", items_of_dataset(source)
    if tables_of_common_voice(source):
        return "folder of Common Voice", items_of_common_voice(source)
    if any(map(LHOTSE.fullmatch, names)):
        return "lhotse manifests", items_of_lhotse(source)
    if asked.tier is not None:
        return TIERS, items_with_tiers(source, asked.tier, asked.ipa_tier)
    return "folder of texts", items_with_texts(source)


class _Faults:
    """What is wrong with a source, all of it; a fault of many is one line."""

    def __init__(self, source: Path):
        self.source = source
        self._places: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._places)

    def add(self, where: str, fault: object) -> None:
        self._places.setdefault(str(fault), []).append(where)

    def end(self) -> None:
        """Log what there was, and raise if there was anything."""
        if not self:
            return
        for fault, places in list(self._places.items())[:_SHOWN]:
            more = f" and {len(places) - 1:,} more" if len(places) > 1 else ""
            log.warning("%s%s: %s", places[0], more, fault)
        n = sum(map(len, self._places.values()))
        hidden = len(self._places) - _SHOWN
        more = f", {hidden} kinds of which are not named" if hidden > 0 else ""
        raise SourceError(
            f"{printable(self.source)}: {n:,} faults{more}, see above; nothing is "
            "written"
        )


def _clips(
    items: Iterator[Item | str], asked: Asked, faults: _Faults
) -> list[tuple[Item, Clip]]:
    clips: list[tuple[Item, Clip]] = []
    first: dict[str, str] = {}
    for item in tqdm(items, desc="read", unit="utt", disable=None):
        if isinstance(item, str):
            where, _, fault = item.rpartition(": ")
            faults.add(where, fault)
            continue
        clip, its_faults = _clip(item, asked)
        other = first.setdefault(clip.clip_id, item.where)
        if other != item.where:
            its_faults.append(f"{item.key!r} is also the name of {other}")
        for fault in its_faults:
            faults.add(item.where, fault)
        clips.append((item, clip))
    if not clips and not faults:
        raise SourceError(
            f"{printable(faults.source)}: no utterances; expected recordings with "
            "texts, a table, or manifests (see docs/own.md)"
        )
    return clips


def _clip(item: Item, asked: Asked) -> tuple[Clip, list[str]]:
    """The clip of an item, and what is wrong with it.

    Its audio is decoded once to know that it can be.
    """
    faults: list[str] = []
    lang = lang_code(item.lang or asked.lang or "")
    if lang is None:
        said = item.lang or asked.lang
        fault = f"no language {said!r}" if said else "its language is not said"
        faults.append(f"{fault}; give an ISO 639-3 code, for all by --lang")
    text, ipa = one_line(item.text), one_line(item.ipa or "")
    if asked.g2p == "none":
        text, ipa = "", ipa or text
    elif not ipa and lang is not None and asked.g2p == "espeak":
        try:
            ipa = text_to_ipa(text, voice_of(lang))
        except EspeakError as err:
            faults.append(str(err))
    if not ipa and not faults:
        faults.append(_no_ipa(text, asked.g2p))
    n_samples = 0
    try:
        n_samples = len(item.samples())
    except AudioError as err:
        faults.append(str(err))
    clip_id = safe_id(item.key).replace("@", "+")  # a sign that stage 1 leaves alone
    clip = Clip(
        clip_id=clip_id,
        language=lang or "",
        speaker=item.speaker or clip_id,
        text=text,
        ipa=ipa,
        duration_s=n_samples / SAMPLE_RATE,
        read_samples=item.samples,
    )
    return clip, faults


def _no_ipa(text: str, g2p: str) -> str:
    if not text:
        return "no text"
    if g2p == "espeak":
        return f"espeak-ng says nothing for {text!r}"
    return "no IPA; --g2p espeak makes it of words, --g2p none says that texts are IPA"


def _splits(
    clips: Sequence[tuple[Item, Clip]], asked: Asked, source: Path
) -> dict[str, list[tuple[Item, Clip]]]:
    """Clips by split: as asked for, else as the source says, else by their texts."""
    if asked.split is not None:
        return {asked.split: list(clips)}
    counts = Counter(item.split for item, _ in clips)
    if None not in counts:
        by_split = {clip.clip_id: item.split for item, clip in clips}
    elif len(counts) > 1:
        raise SourceError(
            f"{printable(source)}: {counts[None]} of {len(clips)} utterances say no "
            "split and the others do; say all or none, or put them into one by --split"
        )
    else:
        by_split = _by_texts([clip for _, clip in clips], asked.seed, source)
    splits: dict[str, list[tuple[Item, Clip]]] = {}
    for name in _SETS:
        part = [row for row in clips if by_split[row[1].clip_id] == name]
        if part:
            splits[name] = part
    return splits


def _warn_of_voices(splits: Mapping[str, Sequence[tuple[Item, Clip]]]) -> None:
    """Say where scores would be of voices that training has heard."""
    trained = {clip.speaker for _, clip in splits.get("train", ())}
    for split in ("dev", "test") if trained else ():
        part = splits.get(split, ())
        voices = {clip.speaker for _, clip in part}
        if shared := voices & trained:
            log.warning(
                "%s: %d of its %d speakers are in train, too: scores on it are of "
                "voices that were heard; the source can say other splits",
                *(split, len(shared), len(voices)),
            )
        elif n := sum(not item.speaker for item, _ in part):
            log.warning(
                "%s: the speakers of %d of its %d utterances are not said, by folders "
                "or a column, so that train may have them, too",
                *(split, n, len(part)),
            )


def _by_texts(clips: Sequence[Clip], seed: int, source: Path) -> dict[str, str]:
    """About 5 % each for dev and test, no text of which is in another split."""
    prompts = {clip.clip_id: clip.text or clip.ipa for clip in clips}
    placed = split_prompts(prompts.items(), seed)
    # spellings that it takes for one text are so below
    keys = {i: text_key(text) or text for i, text in prompts.items()}
    for wanted in ("test", "dev"):  # one text at least
        if wanted in placed.values():
            continue
        texts = Counter(keys[i] for i, split in placed.items() if split == "train")
        if len(texts) < 2:
            raise SourceError(
                f"{printable(source)}: {len(set(keys.values()))} different texts "
                "are too few for train, dev and test; put them into one by --split"
            )
        rarest = min(texts, key=lambda text: (texts[text], text))
        placed |= {i: wanted for i, text in keys.items() if text == rarest}
    return placed


def as_asked(lang: str | None, **how) -> Asked:
    """What is asked, with the language looked up and espeak-ng's voice for it.

    Raises:
        SourceError: no such language, or labels of people by a program.
        EspeakError: espeak-ng does not read it.
    """
    asked = Asked(lang=lang, **how)
    if asked.human and asked.g2p == "espeak":
        raise SourceError("IPA by espeak is no person's; leave out --human or --g2p")
    if lang is None:
        return asked
    code = lang_code(lang)
    if code is None:
        raise SourceError(f"lang {lang!r}: no such language; try ISO 639-3")
    if asked.g2p == "espeak":
        voice_of(code)
    return replace(asked, lang=code)
