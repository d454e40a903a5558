"""Stream `Utterance`s from lhotse Shar: cuts, and the headers of the audio beside them.

A shard is `<corpus>_shar/<split>/cuts.NNNNNN.jsonl.gz` (one cut a line) with
`recording.NNNNNN.tar` (for each cut, in the same order, the encoded audio and then a
small JSON manifest; a cut without audio has empty members `.nodata` and `.nometa`).
No audio is read: lengths come from the manifests and places from the tar headers.

Source: lhotse 1.32, `lhotse.shar`.
"""

import gzip
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from operator import index as as_int
from pathlib import Path
from typing import Any

import orjson

from powsm.audio import n_samples_at_sample_rate
from powsm.corpora.table import ABOUT, CORPORA, Corpus, corpus_row
from powsm.corpora.tarindex import TarError, TarIndex, TarMember
from powsm.corpora.utterance import (
    Utterance,
    UtteranceError,
    make_utt_id,
    one_line,
    safe_id,
)
from powsm.errors import PowsmError
from powsm.files.audio_places import location_in_shard
from powsm.languages import DROPPED_LANGUAGES, UNKNOWN_LANGUAGE, lang_code
from powsm.settings import load_yaml

# between a cut and its recording, for which lhotse allows the same, or its supervision
DURATION_TOLERANCE_S = 0.025

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_CUTS = re.compile(r"cuts(\.(?P<number>.+))?\.jsonl(\.gz)?")
_RECORDING = re.compile(r"recording(\.(?P<number>.+))?\.tar(\.\w+)?")
_UNNUMBERED = "unnumbered"  # lhotse leaves the number out when it does not shard

log = logging.getLogger(__name__)

# What a value of another kind than a cut's makes Python say.
_MISFITS = (KeyError, TypeError, AttributeError, ArithmeticError, UtteranceError)


class ShardError(PowsmError):
    """A shard that cannot be used; the message names it, and its line or member."""


@dataclass(frozen=True, order=True)
class Shard:
    """A cuts file and the tar file that holds its audio.

    Attributes:
        corpus: a name in `powsm.corpora.table`, or that of a folder.
        split: the corpus's own name of the part, the folder of the shard.
        number: what is between `cuts.` and `.jsonl`, as it is written;
            `unnumbered` if nothing does.
    """

    corpus: str
    split: str
    number: str
    cuts: Path
    recording: Path

    @property
    def name(self) -> str:
        """Short and unique, e.g. `fleurs_shar/af_za-test/000000`."""
        return f"{self.corpus}_shar/{self.split}/{self.number}"


def find_shards(
    downloads: Path,
    corpora: Sequence[str] | None = None,
    skip_corpora: Sequence[str] = (),
) -> list[Shard]:
    """Every shard under `<corpus>_shar/<split>/`, sorted by name.

    Args:
        downloads: folder of corpora; other things in it are left alone.
        corpora: only these; None for all that are there. One that is not in the table
            is used by its own name, and a line says so.
        skip_corpora: all but these.

    Raises:
        ShardError: no shard at all, a corpus that is to be skipped and is missing, a
            name or path that cannot be used, or half a shard.
    """
    downloads = Path(downloads)
    if not downloads.is_dir():
        raise ShardError(f"{downloads}: no such folder; run stage 0 to fetch the data")
    folders = sorted(folder for folder in downloads.glob("*_shar") if folder.is_dir())
    wanted = {f"{corpus}_shar" for corpus in corpora or ()}
    skipped = {f"{corpus}_shar" for corpus in skip_corpora}
    if missing := (wanted | skipped) - {folder.name for folder in folders}:
        raise ShardError(
            f"{downloads}: no folder {' '.join(sorted(missing))}; found "
            f"{' '.join(folder.name for folder in folders) or 'none'}"
        )
    shards = []
    for folder in folders:
        if (wanted and folder.name not in wanted) or folder.name in skipped:
            continue
        corpus = folder.name.removesuffix("_shar")
        _check_name(corpus, folder)
        for split in sorted(path for path in folder.iterdir() if path.is_dir()):
            shards.extend(_shards_of_split(corpus, split))
    if not shards:
        raise ShardError(
            f"{downloads}: no <corpus>_shar/<split>/cuts.NNNNNN.jsonl.gz; run stage 0"
        )
    return sorted(shards)


def _check_name(corpus: str, folder: Path) -> None:
    """Say that nobody knows a corpus, and refuse a name that misleads."""
    if corpus in CORPORA:
        return
    human = [row.name for row in CORPORA.values() if row.labels == "human"]
    mistaken = [name for name in human if corpus.startswith(f"{name}_")]
    if mistaken or not _NAME.fullmatch(corpus):
        raise ShardError(
            f"{folder}: {corpus!r} cannot name a corpus: use letters, digits, _ and -, "
            f"and no name that begins with {' '.join(human)}; rename the folder"
        )
    if (folder / ABOUT).is_file():
        return
    log.warning(
        "%s: not in the table of corpora: used as %r, with labels made by a program, "
        "and the language and split that its cuts and folders say",
        folder,
        corpus,
    )


def is_imported_human(shard: Shard) -> bool:
    """Whether the corpus of a shard was imported as one that people transcribed.

    Raises:
        ConfigError: its `corpus.yaml` is no YAML.
    """
    about = shard.cuts.parents[1] / ABOUT
    return about.is_file() and load_yaml(about).get("labels") == "human"


def read_shard(shard: Shard, drops: Counter[str]) -> Iterator[Utterance]:
    """Stream the utterances of a shard, in its order.

    Args:
        shard: its `recording` must not be compressed, its `cuts` may be.
        drops: receives a count for each cut left out, by reason: `no_audio` (written
            as `.nodata`), `no_ipa`, `dropped_language` (see `powsm.languages`),
            `not_one_supervision` (nobody knows whose words they are).

    Raises:
        ShardError: cut off, damaged, not JSON, not the manifest of a cut, cuts and
            recordings that disagree, an unknown language, an id given twice, or a
            member that is not a plain file inside the shard.
    """
    line_of: dict[str, int] = {}
    try:
        with TarIndex(shard.recording) as index:
            members = iter(index)
            for number, line in enumerate(_lines(shard.cuts), 1):
                where = f"{shard.cuts}:{number}"
                cut = _parse_json(line, where)
                try:
                    recording, audio = _recording_of(cut, index, members, where)
                    utterance = _utterance_of(
                        shard, cut, recording, audio, drops, where
                    )
                except _MISFITS as err:
                    raise ShardError(
                        f"{where}: not a usable cut ({type(err).__name__}: {err}); "
                        "write the shard anew"
                    ) from err
                if utterance is None:
                    continue
                first = line_of.setdefault(utterance.utt_id, number)
                if first != number:
                    raise ShardError(
                        f"{where}: utt_id {utterance.utt_id} is given twice, first on "
                        f"line {first}; ids must differ within a corpus and language"
                    )
                yield utterance
            if (extra := next(members, None)) is not None:
                raise ShardError(
                    f"{shard.recording}: member {extra.name!r} comes after the last "
                    f"cut of {shard.cuts.name}; the two files do not belong together"
                )
    except TarError as err:
        raise ShardError(str(err)) from err


def _shards_of_split(corpus: str, split: Path) -> Iterator[Shard]:
    cuts, recordings = {}, {}
    for path in sorted(split.iterdir()):
        for pattern, found in ((_CUTS, cuts), (_RECORDING, recordings)):
            if match := pattern.fullmatch(path.name):
                other = found.setdefault(match["number"] or _UNNUMBERED, path)
                if other != path:
                    raise ShardError(
                        f"{path}: is the same shard as {other.name}; keep one of them"
                    )
    for number in sorted(cuts.keys() | recordings.keys()):
        if number not in cuts or number not in recordings:
            found, kind, lacking = (
                (cuts[number], "cuts", f"recording.{number}.tar")
                if number in cuts
                else (recordings[number], "recording", f"cuts.{number}.jsonl.gz")
            )
            raise ShardError(
                f"{found}: a {kind} file without its {lacking}; fetch the shard again"
            )
        _check_place(recordings[number])
        yield Shard(corpus, split.name, number, cuts[number], recordings[number])


def _check_place(path: Path) -> None:
    """Refuse a path that a line of `wav.scp` cannot hold."""
    name = str(path)
    if "\t" in name or "\n" in name or name.encode(errors="ignore").decode() != name:
        raise ShardError(
            f"{name!r}: a tab, a line break or no UTF-8 in its path; rename the folder"
        )


def _lines(path: Path) -> Iterator[bytes]:
    try:
        if path.suffix == ".gz":
            # a buffer of its own makes lines in C, GzipFile one by one in Python
            with gzip.open(path, "rb") as packed, BufferedReader(packed) as file:
                yield from file
        else:
            with open(path, "rb") as file:
                yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        raise ShardError(
            f"{path}: cut off or damaged ({err}); fetch the file again"
        ) from err


def _parse_json(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = orjson.loads(line)  # two lines an utterance: json is a fifth of stage 1
    except ValueError as err:
        raise ShardError(
            f"{where}: not a line of JSON ({err}); fetch the shard again"
        ) from err
    if not isinstance(value, dict):
        raise ShardError(
            f"{where}: found a JSON {type(value).__name__}, need a cut; fetch the "
            "shard again"
        )
    return value


def _recording_of(
    cut: dict[str, Any], index: TarIndex, members: Iterator[TarMember], where: str
) -> tuple[dict[str, Any] | None, TarMember]:
    """The manifest and audio member that belong to a cut; no manifest: no audio."""
    data, meta = next(members, None), next(members, None)
    if data is None or meta is None:
        raise ShardError(
            f"{where}: cut {cut['id']!r} has no audio; {index.path.name} ends earlier, "
            "the two files do not belong together"
        )
    stem, _, extension = data.name.rpartition(".")
    if stem != cut["id"]:
        raise ShardError(
            f"{where}: cut {cut['id']!r} stands beside member {data.name!r} of "
            f"{index.path.name}; the two files do not belong together"
        )
    expected = f"{stem}.nometa" if extension == "nodata" else f"{stem}.json"
    if meta.name != expected:
        raise ShardError(
            f"{index.path}: member {data.name!r} is followed by {meta.name!r}, "
            f"expected {expected!r}; write the shard anew"
        )
    if extension == "nodata":
        return None, data
    if data.size == 0:
        raise ShardError(
            f"{index.path}: member {data.name!r} is empty; fetch the shard again"
        )
    where = f"{index.path}: member {meta.name!r}"
    return _parse_json(index.read(meta), where), data


def _utterance_of(
    shard: Shard,
    cut: dict[str, Any],
    recording: dict[str, Any] | None,
    audio: TarMember,
    drops: Counter[str],
    where: str,
) -> Utterance | None:
    if recording is None:
        drops["no_audio"] += 1
        return None
    rate, n_samples = (
        as_int(recording["sampling_rate"]),
        as_int(recording["num_samples"]),
    )
    _check_agreement(cut, recording, where)
    if len(cut["supervisions"]) != 1:
        drops["not_one_supervision"] += 1
        return None
    supervision = cut["supervisions"][0]
    custom = supervision.get("custom") or {}
    ipa = one_line(custom.get("original") or "") or one_line(custom.get("phones") or "")
    if not ipa:
        drops["no_ipa"] += 1
        return None
    lang = _language_of(supervision["language"] or "", corpus_row(shard.corpus))
    if lang is None:
        raise ShardError(
            f"{where}: unknown language {supervision['language']!r} of cut "
            f"{cut['id']!r}; add its spelling to powsm/languages.csv"
        )
    if lang in DROPPED_LANGUAGES:
        drops["dropped_language"] += 1
        return None
    utt_id = make_utt_id(shard.corpus, _recording_id(shard.corpus, cut["id"]), lang)
    speaker = supervision.get("speaker")
    is_known = speaker not in (None, "")  # 0 is a name
    return Utterance(
        utt_id=utt_id,
        corpus=shard.corpus,
        split=shard.split,
        lang=lang,
        speaker=f"{shard.corpus}_{safe_id(str(speaker))}" if is_known else utt_id,
        audio=location_in_shard(shard.recording, audio.offset, audio.size),
        n_samples=n_samples_at_sample_rate(n_samples, rate),
        text=one_line(custom.get("orthographic") or ""),
        ipa=ipa,
        ipa_clean=one_line(supervision.get("text") or ""),
        is_partly_labelled=_is_part(supervision, cut),
    )


def _is_part(supervision: dict[str, Any], cut: dict[str, Any]) -> bool:
    """Whether a supervision leaves some of its cut out, at one end or both."""
    start_s = supervision.get("start", 0)
    end_s = start_s + supervision.get("duration", cut["duration"])
    left_out_s = max(start_s, cut["duration"] - end_s)
    return left_out_s > DURATION_TOLERANCE_S


def _language_of(spelling: str, corpus: Corpus) -> str | None:
    lang = lang_code(spelling)
    if lang is None and len(corpus.languages) == 1:
        return corpus.languages[0]
    if lang is None and corpus.labels == "human":
        return UNKNOWN_LANGUAGE  # a test set needs no known language; g2p labels do
    return lang


def _check_agreement(
    cut: dict[str, Any], recording: dict[str, Any], where: str
) -> None:
    """The cut must be the whole of its recording, of one channel."""
    rate, n_samples = recording["sampling_rate"], recording["num_samples"]
    if len(recording["channel_ids"]) != 1:
        raise ShardError(
            f"{where}: cut {cut['id']!r} has {len(recording['channel_ids'])} channels, "
            "expected 1; mix or split them first"
        )
    own = cut.get("recording") or recording
    own_n_samples, own_rate = own["num_samples"], own["sampling_rate"]
    # lhotse may resample for a codec, and then changes only one of the two manifests
    differs = own_rate == rate and own_n_samples != n_samples
    duration_s = n_samples / rate
    off_s = max(
        abs(cut["duration"] - duration_s), abs(own_n_samples / own_rate - duration_s)
    )
    if differs or cut["start"] != 0 or off_s > DURATION_TOLERANCE_S:
        raise ShardError(
            f"{where}: cut {cut['id']!r} (start {cut['start']} s, {cut['duration']} s, "
            f"{own_n_samples} samples at {own_rate} Hz) disagrees with its recording "
            f"({n_samples} samples at {rate} Hz); cuts must span whole recordings: "
            "write the shard anew"
        )


def _recording_id(corpus: str, cut_id: str) -> str:
    """The cut's id without what the writer of the shards left on it."""
    return cut_id.removesuffix(".wav-0") if corpus == "kazakh2" else cut_id
