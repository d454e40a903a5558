"""Asterisk core sounds: telephone prompts in five languages, from Debian packages.

Studio recordings of professional speakers, about 80 minutes. The text is in the package
without a codec suffix, lines `id: text`; the audio is in the one with `-g722`, 16 kHz
mono (`-wav` and `-gsm` are 8 kHz). Licence CC-BY-SA-3.0 (eng spa fra), CC-BY-3.0
(rus ita). https://packages.debian.org/source/stable/asterisk-core-sounds

The text files were made for people who maintain telephone systems. `mend` repairs lost
accents and misspellings by a table, and `fault` finds the prompts whose text is not
what is said.
"""

import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import numpy as np

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.audio_files import decode_as
from powsm.corpora.small import espeak
from powsm.corpora.small.packages import Package
from powsm.corpora.small.split import split_prompts
from powsm.corpora.small.text_faults import text_fault
from powsm.corpora.small.write_shar import Clip, Selection
from powsm.errors import PowsmError

G722_BYTES_PER_SECOND = 8000  # 64 kbit/s: one byte codes two samples
ESTIMATE = "writing about 95 MB in half a minute"
REVISION = 1  # raise it when the choice of clips or their labels change

_VERSION = "1.6.1-1"
PACKAGES = tuple(
    Package(f"asterisk-core-sounds-{suffix}", _VERSION, size, sha256)
    for suffix, size, sha256 in (
        (
            "en",
            22844,
            "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
        ),
        (
            "en-g722",
            10565860,
            "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
        ),
        (
            "es",
            22012,
            "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74",
        ),
        (
            "es-g722",
            13048380,
            "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8",
        ),
        (
            "fr",
            23152,
            "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056",
        ),
        (
            "fr-g722",
            10822860,
            "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0",
        ),
        (
            "it",
            23972,
            "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b",
        ),
        (
            "it-g722",
            10087176,
            "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016",
        ),
        (
            "ru",
            25592,
            "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab",
        ),
        (
            "ru-g722",
            10579440,
            "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
        ),
    )
)


@dataclass(frozen=True)
class Voice:
    """The recordings of one language.

    Attributes:
        lang: ISO 639-3.
        code: ISO 639-1, in the package names and in the cuts' `language`.
        folder: below `usr/share/asterisk/sounds`.
        speaker: the same person speaks English and Spanish.
    """

    lang: str
    code: str
    folder: str
    speaker: str


VOICES = (
    Voice("eng", "en", "en_US_f_Allison", "allison"),
    Voice("spa", "es", "es_MX_f_Allison", "allison"),
    Voice("fra", "fr", "fr_CA_f_June", "june"),
    Voice("ita", "it", "it_IT_m_Carlo", "carlo"),
    Voice("rus", "ru", "ru_RU_f_IvrvoiceRU", "ivrvoice"),
)

# Beeps, monkeys and silence; some have a text that describes the sound.
_NOT_SPEECH = re.compile(
    r"beep|beeperr|(as|des)cending-2tone|confbridge-(join|leave)|tt-monkeys|silence/.*"
)
_WORD = re.compile(r"[\w?]+")


def select(root: Path, seed: int) -> Selection:
    """Choose, mend, split and label the prompts in unpacked packages.

    Args:
        root: the folder that holds `usr/share`.
        seed: of the split.

    Raises:
        FileNotFoundError: a text or sound folder is missing; all that are missing are
            named.
        PowsmError: a line of a text file is not `id: text`.
    """
    _check_layout(root)
    selection = Selection()
    kept: list[tuple[Voice, str, str, Path]] = []
    for voice in VOICES:
        left_out = selection.left_out[voice.lang] = Counter()
        prompts, repeated = read_prompts(_text_path(root, voice))
        for prompt_id, path in _recordings(root, voice):
            text = mend(prompts.get(prompt_id, ""), voice.lang)
            duration_s = path.stat().st_size / G722_BYTES_PER_SECOND
            if prompt_id in repeated:
                left_out["repeated_id"] += 1
            elif reason := fault(prompt_id, text, voice.lang, duration_s):
                left_out[reason] += 1
            else:
                kept.append((voice, prompt_id, text, path))
    split_of = split_prompts(
        ((prompt_id, text) for _, prompt_id, text, _ in kept), seed
    )
    for voice, prompt_id, text, path in kept:
        clip = Clip(
            clip_id=f"{voice.lang}-{prompt_id.replace('/', '-')}",
            language=voice.code,
            speaker=voice.speaker,
            text=text,
            ipa=espeak.text_to_ipa(text, espeak.VOICES[voice.lang]),
            duration_s=path.stat().st_size / G722_BYTES_PER_SECOND,
            read_samples=partial(read_g722, path),
        )
        selection.splits[split_of[prompt_id]].append(clip)
    return selection


def read_prompts(path: Path) -> tuple[dict[str, str], set[str]]:
    """Read a text file: prompt id -> text, and the ids that occur more than once.

    The file may be compressed and may begin with a byte order mark; `;` starts a
    comment line. Which text of a repeated id is the right one cannot be known.

    Raises:
        PowsmError: a line has no colon.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    prompts: dict[str, str] = {}
    repeated = set()
    with opener(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or line.startswith(";"):
                continue
            prompt_id, colon, text = line.partition(":")
            if not colon:
                raise PowsmError(f"{path}:{number}: {line.strip()!r} is not `id: text`")
            prompt_id = prompt_id.strip()
            if prompt_id in prompts:
                repeated.add(prompt_id)
            prompts[prompt_id] = " ".join(text.split())
    return prompts, repeated


def mend(text: str, lang: str) -> str:
    """Repair known misspellings, word by word; a capital letter stays one.

    Spanish and French lack many accents, and in Italian some accented letters at the
    end of a word have become "?". The table is
    `powsm/corpora/small/asterisk_spelling.csv`.

    >>> mend("Contrasena incorrecta. Buzon?", "spa")
    'Contraseña incorrecta. Buzón?'
    >>> mend("Non pu? essere. Scusi? ? vuota.", "ita")
    'Non può essere. Scusi? è vuota.'
    """
    table = _spelling()[lang]

    def word(match: re.Match) -> str:
        written = match[0]
        for stem in (written, written.rstrip("?")):
            if meant := table.get(stem.casefold()):
                if stem[0].isupper():
                    meant = meant[0].upper() + meant[1:]
                return meant + written[len(stem) :]
        return written

    return _WORD.sub(word, text)


@cache
def _spelling() -> Mapping[str, Mapping[str, str]]:
    resource = files("powsm.corpora.small").joinpath("asterisk_spelling.csv")
    table: dict[str, dict[str, str]] = {voice.lang: {} for voice in VOICES}
    for row in csv.DictReader(resource.read_text(encoding="utf-8").splitlines()):
        table[row["lang"]][row["written"]] = row["meant"]
    return table


def fault(prompt_id: str, text: str, lang: str, duration_s: float) -> str | None:
    """Why a recording cannot be used with its text, in one word; None if it can.

    >>> fault("vm-and", "and", "eng", 0.4) is None
    True
    >>> fault("dir-multi9", "Press 9 for more", "eng", 2.0)
    'digits'
    """
    if _NOT_SPEECH.fullmatch(prompt_id):
        return "not_speech"
    # the next line of the file is on this one: "... eliminato vm-then-pound: poi"
    if re.search(r"\b[a-z]+-[a-z-]+:", text):
        return "two_lines"
    if re.search(r"\?\s*[a-z]", text):
        return "damaged"
    if duration_s == 0:
        return "no_audio"
    if duration_s > WINDOW_S:
        return "too_long"
    return text_fault(text, "CYRILLIC" if lang == "rus" else "LATIN")


def read_g722(path: Path) -> np.ndarray:
    """Decode one G.722 file: int16 (n_samples,) at 16 kHz.

    The codec adapts as it goes, so that files must not be joined before decoding.

    Raises:
        AudioError: the file does not decode.
        PowsmError: it does not give two samples a byte.
    """
    samples, rate = decode_as(path, "g722")
    n_expected = 2 * path.stat().st_size
    found, expected = (
        (len(samples), rate, samples.dtype),
        (n_expected, SAMPLE_RATE, np.int16),
    )
    if not len(samples) or found != expected:
        raise PowsmError(
            f"{path}: decodes to {len(samples)} samples of {samples.dtype} at {rate} "
            f"Hz, expected {n_expected} of int16 at {SAMPLE_RATE} Hz"
        )
    return samples


def _text_path(root: Path, voice: Voice) -> Path:
    folder = root / "usr/share/doc" / f"asterisk-core-sounds-{voice.code}"
    plain = folder / f"core-sounds-{voice.code}.txt"
    return plain if plain.is_file() else plain.with_suffix(".txt.gz")


def _sound_folder(root: Path, voice: Voice) -> Path:
    return root / "usr/share/asterisk/sounds" / voice.folder


def _recordings(root: Path, voice: Voice) -> Iterator[tuple[str, Path]]:
    """Prompt id and file of every recording, in order of the id."""
    folder = _sound_folder(root, voice)
    for path in sorted(folder.rglob("*.g722")):
        yield str(path.relative_to(folder).with_suffix("")), path


def _check_layout(root: Path) -> None:
    needed = [_text_path(root, voice) for voice in VOICES]
    needed += [_sound_folder(root, voice) for voice in VOICES]
    if absent := [str(path) for path in needed if not path.exists()]:
        raise FileNotFoundError(
            f"{root} does not hold the unpacked packages "
            f"{', '.join(package.name for package in PACKAGES)}; missing: "
            + ", ".join(absent)
        )
