"""GNOME's user guide in 17 voices of flite and Festival, which people lent.

espeak-ng computes its sounds; these voices are diphones, units or statistics of
recordings, so they sound like their speakers. Sentences as in `gnomeworld`, eight
minutes a voice, disturbed like those; the phones are espeak-ng's reading of the text,
which these programs follow closely and not everywhere. All is for training.

Both programs, and Festival's voices, are Debian packages that have to be installed:
`apt-get install flite festival` and `festvox-*` as `VOICES` names them.
"""

import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from powsm.audio import SAMPLE_RATE
from powsm.corpora.small import espeak, gnomehelp
from powsm.corpora.small.gnomeworld import LANGUAGES, MAX_WORDS, MIN_WORDS, disturb
from powsm.corpora.small.write_shar import Clip, Selection, read_recording
from powsm.errors import PowsmError

PACKAGES = gnomehelp.PACKAGES
ESTIMATE = "speaking 2 hours in 17 voices, 170 MB, in four minutes"
REVISION = 1  # raise it when the choice of sentences or how they are spoken change
MINUTES = 8.0  # a voice
STRETCHES = (0.8, 1.25)  # of durations, where a voice takes it
_AT_ONCE = 25  # sentences of one start of Festival


@dataclass(frozen=True)
class Voice:
    """A voice of a synthesiser.

    Attributes:
        program: flite or festival.
        name: as the program has it.
        package: Debian's, to install.
        folder: of the guide, a key of `gnomeworld.LANGUAGES`.
        encoding: of text as the voice reads it.
    """

    program: str
    name: str
    package: str
    folder: str
    encoding: str


VOICES = (
    *(Voice("flite", name, "flite", "C", "utf-8") for name in
      ("awb", "kal16", "rms", "slt")),
    *(Voice("festival", name, f"festvox-{package}", folder, encoding)
      for name, package, folder, encoding in (
        ("ked_diphone", "kdlpc16k", "C", "latin-1"),
        ("lp_diphone", "italp16k", "it", "latin-1"),
        ("pc_diphone", "itapc16k", "it", "latin-1"),
        ("czech_dita", "czech-dita", "cs", "iso-8859-2"),
        ("czech_krb", "czech-krb", "cs", "iso-8859-2"),
        ("czech_machac", "czech-machac", "cs", "iso-8859-2"),
        ("czech_ph", "czech-ph", "cs", "iso-8859-2"),
        ("hy_fi_mv_diphone", "suopuhe-mv", "fi", "latin-1"),
        ("suo_fi_lj_diphone", "suopuhe-lj", "fi", "latin-1"),
        ("msu_ru_nsh_clunits", "ru", "ru", "utf-8"),
        ("upc_ca_ona_hts", "ca-ona-hts", "ca", "latin-1"),
        ("marathi_NSK_diphone", "mr-nsk", "mr", "utf-8"),
        ("telugu_NSK_diphone", "te-nsk", "te", "utf-8"),
    )),
)  # fmt: skip


def select(root: Path, seed: int) -> Selection:
    """Speak sentences of the unpacked package in each voice, until it has its share.

    Args:
        root: the folder that holds `usr/share`.
        seed: of the choice, the durations and the disturbances.

    Raises:
        FileNotFoundError: a language has no pages below the folder.
        PowsmError: a program or a voice is not installed.
    """
    check_installed()
    selection = Selection(splits={"train": []})
    folders = {voice.folder: LANGUAGES[voice.folder] for voice in VOICES}
    chosen = gnomehelp.texts_by_language(root, folders, (MIN_WORDS, MAX_WORDS))
    by_folder = dict(zip(folders, chosen, strict=True))
    for number, voice in enumerate(VOICES):
        _, _, texts, left_out = by_folder[voice.folder]
        draw = np.random.default_rng([seed, number])
        texts = [texts[i] for i in draw.permutation(len(texts))]
        clips, left = share(voice, texts, draw)
        selection.splits["train"] += clips
        selection.left_out[voice.name] = left_out + left
    return selection


def check_installed() -> None:
    """Refuse to begin where a program or a voice is not there.

    Raises:
        PowsmError: names what to install.
    """
    programs = {voice.program for voice in VOICES}
    missing = {program for program in programs if not shutil.which(program)}
    if "festival" in programs - missing:
        command = ["festival", "-b", "(print (voice.list))"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        known = done.stdout.translate(str.maketrans("()", "  ")).split()
        spoken = (voice for voice in VOICES if voice.program == "festival")
        missing |= {voice.package for voice in spoken if voice.name not in known}
    if missing:
        raise PowsmError(
            f"the corpus voices needs {' '.join(sorted(missing))}: install them with "
            "apt-get, or leave voices out of --corpora"
        )


def share(
    voice: Voice, texts: Sequence[str], draw: np.random.Generator
) -> tuple[list[Clip], Counter[str]]:
    """Disturbed speech of the first texts, and how many were not needed or not said."""
    code, lang, _ = LANGUAGES[voice.folder]
    name = voice.name.replace("_", "-")
    clips: list[Clip] = []
    left_out: Counter[str] = Counter()
    seconds = 0.0
    for begin in tqdm(range(0, len(texts), _AT_ONCE), desc=voice.name, disable=None):
        some = texts[begin : begin + _AT_ONCE]
        if seconds >= 60 * MINUTES:
            left_out["not_needed"] += len(some)
            continue
        stretch = float(draw.uniform(*STRETCHES))
        for text, speech in zip(some, speak(voice, some, stretch), strict=True):
            ipa = espeak.text_to_ipa(text, espeak.voice_of(lang))
            if not ipa or speech is None or not speech.any():
                left_out["not_said"] += 1
                continue
            duration_s = speech.size / SAMPLE_RATE
            heard = partial(np.copy, disturb(speech, draw))
            clip_id = f"{name}-{len(clips):04d}"
            speaker = f"{voice.program}-{name}"
            clips.append(Clip(clip_id, code, speaker, text, ipa, duration_s, heard))
            seconds += duration_s
    return clips, left_out


def speak(
    voice: Voice, texts: Sequence[str], stretch: float
) -> list[np.ndarray | None]:
    """int16 (n_samples,) at 16 kHz of each text; None where the voice says nothing."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.wav") for number in range(len(texts))]
        if voice.program == "flite":
            for text, file in zip(texts, files, strict=True):
                options = ["--setf", f"duration_stretch={stretch:.3f}"]
                command = ["flite", "-voice", voice.name, *options, "-t", text]
                subprocess.run([*command, "-o", str(file)], capture_output=True)
        else:
            lines = [
                f"(voice_{voice.name})",
                f"(Parameter.set 'Duration_Stretch {stretch:.3f})",
                "(define (say text file) (unwind-protect (utt.save.wave (utt.synth"
                " (eval (list 'Utterance 'Text text))) file 'riff) nil))",
            ]
            lines += [
                f"(say {_quoted(text)} {_quoted(str(file))})"
                for text, file in zip(texts, files, strict=True)
                if _can_write(text, voice.encoding)  # a letter less is another word
            ]
            script = Path(folder, "say.scm")
            script.write_text("\n".join(lines), voice.encoding)
            subprocess.run(["festival", "-b", str(script)], capture_output=True)
        return [read_recording(f) if f.exists() else None for f in files]


def _can_write(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _quoted(text: str) -> str:
    """A string of Scheme."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
