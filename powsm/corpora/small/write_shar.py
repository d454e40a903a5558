"""Write a corpus in IPAPack++'s layout: `<corpus>_shar/<split>/` in lhotse's Shar.

A split holds `cuts.NNNNNN.jsonl.gz` and `recording.NNNNNN.tar` (16 kHz FLAC). A
supervision has `text` (IPA, simplified), `language`, `speaker` and in `custom`
`orthographic`, `original` (IPA as labelled, words separated by spaces), `phones` (the
same without spaces) and `clean` (without stress and length).

The same clips give the same bytes: tar members carry no times, and the time in the
header of the gzip files is set to zero. A corpus appears under its name when it is
complete, together with `manifest.json`: settings, and size and hash of every file.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from tqdm import tqdm

from powsm.audio import SAMPLE_RATE, read_audio
from powsm.audio_files import encode
from powsm.corpora.small.split import SPLITS
from powsm.corpora.table import ABOUT
from powsm.errors import PowsmError
from powsm.files.current import has_sizes
from powsm.files.whole import (
    atomic_folder,
    atomic_write,
    naming,
    read_json,
    sha256_file,
    write_whole,
)

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SHARD_SIZE = 500  # clips
_LAYOUT_VERSION = 1  # of what this module writes; a new one makes old corpora stale
_GZIP_MTIME = 4  # byte offset of the four bytes in the header (RFC 1952, 2.3)
_STRESS_AND_LENGTH = str.maketrans("", "", "ˈˌːˑ")


@dataclass(frozen=True)
class Clip:
    """One stretch of speech with its labels.

    Attributes:
        clip_id: unique in the corpus; letters, digits and `-_.+`.
        language: code as the corpus spells it, e.g. "en".
        speaker: id within the corpus.
        text: orthography.
        ipa: transcription, words separated by spaces.
        duration_s: seconds.
        read_samples: gives the speech, int16 (n_samples,) at `SAMPLE_RATE`.
    """

    clip_id: str
    language: str
    speaker: str
    text: str
    ipa: str
    duration_s: float
    read_samples: Callable[[], np.ndarray]


@dataclass
class Selection:
    """The recordings of a corpus that are kept, and why the others are not.

    Attributes:
        splits: split -> clips.
        left_out: language -> reason -> number of recordings.
    """

    splits: dict[str, list[Clip]] = field(
        default_factory=lambda: {split: [] for split in SPLITS}
    )
    left_out: dict[str, Counter[str]] = field(default_factory=dict)

    def table(self) -> str:
        """Utterances and minutes by language and split, and what was left out."""
        languages = sorted(
            {clip.language for clips in self.splits.values() for clip in clips}
        )
        rows = [["language", *(f"{s} utts, min" for s in self.splits), "all utts, min"]]
        for language in [*languages, "all"]:
            row = [language]
            everything = [c for clips in self.splits.values() for c in clips]
            for clips in [*self.splits.values(), everything]:
                chosen = [c for c in clips if language in ("all", c.language)]
                minutes = sum(c.duration_s for c in chosen) / 60
                row.append(f"{len(chosen):,}, {minutes:.1f}")
            rows.append(row)
        lines = ["  ".join(f"{cell:>17}" for cell in row) for row in rows]
        for language, reasons in sorted(self.left_out.items()):
            counts = " ".join(f"{name}={n}" for name, n in sorted(reasons.items()))
            lines.append(f"left out of {language}: {counts or 'nothing'}")
        return "\n".join(lines)


def read_recording(path: Path) -> np.ndarray:
    """A whole file of one channel: int16 (n_samples,) at `SAMPLE_RATE`.

    Raises:
        AudioError: the file does not decode, or is cut off.
    """
    samples = read_audio(str(path))
    return np.round(samples.clip(-1, 1) * 32767).astype(np.int16)


def write_corpus(
    folder: Path,
    splits: Mapping[str, Sequence[Clip]],
    settings: Mapping[str, object],
    about: Mapping[str, object] | None = None,
) -> None:
    """Write all splits of a corpus, then move it to its place.

    Args:
        folder: `downloads/<corpus>_shar`; replaced if it exists.
        splits: split name -> clips; they are written in order of their ids.
        settings: what the corpus was made from, for `is_current`.
        about: what `powsm.corpora.table.ABOUT` of a corpus that is in no table says.

    Raises:
        OwnedError: another process is writing this corpus.
        PowsmError: a split without clips, or one clip id twice.
    """
    for split, clips in splits.items():
        ids = [clip.clip_id for clip in clips]
        if not ids:
            raise PowsmError(f"{folder}: no clip is left for {split}")
        if len(set(ids)) < len(ids):
            twice = sorted({i for i in ids if ids.count(i) > 1})
            raise PowsmError(f"{folder}: {split} has ids more than once: {twice[:5]}")
    with naming(folder), atomic_folder(folder) as making:
        n_clips = sum(len(clips) for clips in splits.values())
        with tqdm(total=n_clips, desc=folder.name, unit="clip", disable=None) as bar:
            for split, clips in splits.items():
                _write_split(making / split, clips, bar)
        if about is not None:
            with atomic_write(making / ABOUT) as file:
                yaml.safe_dump(dict(about), file, allow_unicode=True, sort_keys=False)
        manifest = {
            "layout": _LAYOUT_VERSION,
            "settings": dict(settings),
            "files": {
                str(path.relative_to(making)): {
                    "size": path.stat().st_size,
                    "sha256": sha256_file(path),
                }
                for path in sorted(making.rglob("*.*"))
            },
        }
        write_whole(
            making / MANIFEST,
            json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True),
        )


def is_current(folder: Path, settings: Mapping[str, object]) -> bool:
    """Whether a complete corpus made with these settings is there.

    Files are compared by size: their hashes are in the manifest for a closer look.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return False
    remedy = f"remove {folder} and run stage 0 again"
    manifest = read_json(path, remedy, keys=("layout", "settings", "files"))
    if (manifest["layout"], manifest["settings"]) != (_LAYOUT_VERSION, dict(settings)):
        logger.info("%s was made with other settings", folder)
        return False
    if not has_sizes(folder, {n: f["size"] for n, f in manifest["files"].items()}):
        logger.warning("%s: a file is missing or has another size than it had", folder)
        return False
    return True


def _write_split(folder: Path, clips: Sequence[Clip], bar: tqdm) -> None:
    from lhotse.shar import SharWriter  # imports torch

    folder.mkdir()
    with SharWriter(folder, {"recording": "flac"}, shard_size=SHARD_SIZE) as writer:
        for clip in sorted(clips, key=lambda clip: clip.clip_id):
            writer.write(_cut(clip))
            bar.update()
    for path in folder.glob("*.gz"):
        with open(path, "r+b") as file:
            file.seek(_GZIP_MTIME)
            file.write(bytes(4))


def _cut(clip: Clip):
    """The clip as lhotse's MonoCut, with its audio in memory."""
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

    samples = clip.read_samples()
    if samples.dtype != np.int16 or samples.ndim != 1 or len(samples) == 0:
        raise PowsmError(
            f"{clip.clip_id}: samples are {samples.dtype} {samples.shape}, expected "
            "int16 of one dimension, not empty"
        )
    duration_s = len(samples) / SAMPLE_RATE
    phones = clip.ipa.replace(" ", "")
    clean = phones.translate(_STRESS_AND_LENGTH)
    supervision = SupervisionSegment(
        id=clip.clip_id,
        recording_id=clip.clip_id,
        start=0.0,
        duration=duration_s,
        channel=0,
        text=clean,
        language=clip.language,
        speaker=clip.speaker,
        custom={
            "orthographic": clip.text,
            "original": clip.ipa,
            "phones": phones,
            "clean": clean,
        },
    )
    recording = Recording(
        id=clip.clip_id,
        sources=[AudioSource("memory", [0], encode(samples, SAMPLE_RATE))],
        sampling_rate=SAMPLE_RATE,
        num_samples=len(samples),
        duration=duration_s,
    )
    return MonoCut(
        id=clip.clip_id,
        start=0.0,
        duration=duration_s,
        channel=0,
        recording=recording,
        supervisions=[supervision],
    )
