"""espeak-ng through ctypes: phone labels for text, and speech with phone times.

The library and its data come from the `espeakng_loader` wheel (espeak-ng 1.52), so
nothing has to be installed on the system. It keeps one global state per process:
calls are serialised by a lock, and every call names its voice.

What it writes is not one IPA segment per sound ("eɪ", "dʒ", "ɑːɹ" are its units, ᵻ
and ɚ occur) and carries stress marks; `powsm.phones.normaliser` makes phones of it.
"""

import ctypes
import re
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import espeakng_loader
import numpy as np

from powsm.errors import PowsmError
from powsm.languages import lang_code, language_name

# Voices by ISO 639-3 code. es-419 is Latin American Spanish: "z" and "c" are [s].
VOICES = {
    "bel": "be",
    "bul": "bg",
    "cat": "ca",
    "dan": "da",
    "deu": "de",
    "ell": "el",
    "eng": "en-us",
    "fra": "fr",
    "ita": "it",
    "pol": "pl",
    "por": "pt",
    "ron": "ro",
    "rus": "ru",
    "spa": "es-419",
    "swe": "sv",
    "tur": "tr",
}

# Where espeak-ng 1.52 has no IPA for a sound it spells its own name of it. In Danish
# such names begin with ?, written ʔ or ?, also where no stød is (tak, øl); in Amharic `
# makes an ejective, in Irish A is the a of athair, in languages of India r. is a flap.
_OWN_NAMES = {
    "am": (("`", "ʼ"),),
    "as": (("r.", "ɽ"),),
    "da": (("ʔ", ""), ("?", "")),
    "ga": (("A", "a"),),
    "gu": (("r.", "ɽ"),),
    "pa": (("r.", "ɽ"),),
}

# Values of espeak-ng's speak_lib.h
_AUDIO_OUTPUT_RETRIEVAL = 1
_INITIALIZE_PHONEME_EVENTS = 0x0001
_INITIALIZE_PHONEME_IPA = 0x0002
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_PHONEMES_IPA = 0x02
_POS_CHARACTER = 1
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_EVENT_LIST_TERMINATED = 0
_EVENT_PHONEME = 7
_MAX_DATA_PATH = 160  # bytes; the library copies the path into a fixed buffer

_LANGUAGE_SWITCH = re.compile(r"\([a-z]{2,3}(?:-[a-z0-9]+)*\)")
_LANGUAGE_LINE = re.compile(r"^language\s+([\w-]+)", re.MULTILINE)  # of a voice
_LOCK = threading.Lock()


class EspeakError(PowsmError):
    """espeak-ng could not be loaded, has no such voice, or failed on a text."""


@dataclass(frozen=True)
class PhoneEvent:
    """A sound that espeak-ng began to speak: its own IPA unit and the time.

    Units of one sound follow each other; the unit "" is a pause. Times are those of
    the synthesiser's schedule, rounded down to whole samples.
    """

    phone: str
    start_s: float


class _Event(ctypes.Structure):
    class _Id(ctypes.Union):
        _fields_ = [
            ("number", ctypes.c_int),
            ("name", ctypes.c_char_p),
            ("string", ctypes.c_char * 8),
        ]

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@cache
def _library() -> tuple[ctypes.CDLL, int]:
    """The initialised library and its sample rate in Hz."""
    data_path = espeakng_loader.get_data_path()
    if len(data_path.encode()) > _MAX_DATA_PATH:
        raise EspeakError(
            f"{data_path}: this path has {len(data_path.encode())} bytes and espeak-ng "
            f"keeps {_MAX_DATA_PATH} at most; install into a folder with a shorter name"
        )
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as err:
        raise EspeakError(f"espeak-ng does not load: {err}") from err
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_int,
        ctypes.c_int,
    ]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    library.espeak_Info.restype = ctypes.c_char_p
    rate = library.espeak_Initialize(
        _AUDIO_OUTPUT_RETRIEVAL,
        0,
        data_path.encode(),
        _INITIALIZE_PHONEME_EVENTS | _INITIALIZE_PHONEME_IPA | _INITIALIZE_DONT_EXIT,
    )
    if rate <= 0:
        raise EspeakError(f"espeak-ng does not start with the data in {data_path}")
    return library, rate


def _set_voice(library: ctypes.CDLL, voice: str) -> None:
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise EspeakError(
            f"espeak-ng has no voice {voice!r}; languages that are known here: "
            + ", ".join(f"{lang}={name}" for lang, name in sorted(VOICES.items()))
        )


def version() -> str:
    """Version of the espeak-ng library, which the labels depend on."""
    library, _ = _library()
    return library.espeak_Info(None).decode().split()[0]


@cache
def voice_of(lang: str) -> str:
    """The voice that reads a language: one of `VOICES`, else one that espeak-ng has.

    Args:
        lang: ISO 639-3.

    Raises:
        EspeakError: espeak-ng does not read it.

    >>> voice_of("ita"), voice_of("hin")
    ('it', 'hi')
    """
    if lang in VOICES:
        return VOICES[lang]
    folder = Path(espeakng_loader.get_data_path(), "lang")
    voices = [
        (tag, file.name)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        for tag in _LANGUAGE_LINE.findall(file.read_text("utf-8", "replace"))
    ]
    known = [(tag, name) for tag, name in voices if lang_code(tag) == lang]
    if not known:
        raise EspeakError(
            f"espeak-ng does not read {lang} ({language_name(lang)}); it has "
            f"{len({name for _, name in voices})} voices of other languages"
        )
    return min(known, key=lambda voice: (len(voice[0]), voice))[1]


def text_to_ipa(text: str, voice: str) -> str:
    """IPA of a text as espeak-ng would say it: words separated by one space.

    Stress and length marks stay. Marks of a switch to another language's rules, such
    as "(en)", are removed; the words between them stay.

    Args:
        text: orthography; punctuation ends clauses and is not in the result.
        voice: espeak-ng voice, e.g. one of `VOICES`.

    Returns:
        IPA in one line; "" for a text with nothing to say.

    Raises:
        EspeakError: unknown voice, or a NUL character in the text.

    >>> text_to_ipa("Little bottle.", "en-us")
    'lˈɪɾəl bˈɑːɾəl'
    >>> text_to_ipa("hus", "da")  # espeak-ng spells hˈʔus
    'hˈus'
    """
    if "\0" in text:
        raise EspeakError(f"text {text!r} holds a NUL character")
    library, _ = _library()
    clauses = []
    with _LOCK:
        _set_voice(library, voice)
        buffer = ctypes.create_string_buffer(text.encode())
        rest = ctypes.c_void_p(ctypes.addressof(buffer))
        while rest.value:  # one clause a call; the pointer becomes NULL at the end
            clause = library.espeak_TextToPhonemes(
                ctypes.byref(rest), _CHARS_UTF8, _PHONEMES_IPA
            )
            clauses.append(clause.decode())
    ipa = " ".join(_LANGUAGE_SWITCH.sub("", " ".join(clauses)).split())
    for name, meant in _OWN_NAMES.get(voice, ()):
        ipa = ipa.replace(name, meant)
    return ipa


def synthesise(
    text: str, voice: str, *, rate_wpm: int = 175, pitch: int = 50
) -> tuple[np.ndarray, int, list[PhoneEvent]]:
    """Speech of a text, with the times at which its sounds begin.

    Voices waver a little at random, from a state that goes on from call to call: the
    same calls from the start of a process give the same samples, a repeated call does
    not.

    Args:
        text: orthography.
        voice: espeak-ng voice, e.g. one of `VOICES`; "+f2" behind it speaks as another
            person.
        rate_wpm: words a minute.
        pitch: 0 to 99; 50 is the voice's own.

    Returns:
        (samples, rate_hz, events): float32 (n_samples,) in [-1, 1]; the rate is
        espeak-ng's own (22,050 Hz); events in order of time.

    Raises:
        EspeakError: unknown voice, or the text gives no sound.
    """
    library, rate = _library()
    pieces: list[np.ndarray] = []
    events: list[PhoneEvent] = []

    def collect(samples, n_samples, event):  # -> 0: go on
        i = 0
        while event and event[i].type != _EVENT_LIST_TERMINATED:
            if event[i].type == _EVENT_PHONEME:
                # at most 8 bytes, without a final NUL when all are used; a character
                # cut there is not whole and left out
                phone = event[i].id.string.decode(errors="ignore")
                events.append(PhoneEvent(phone, event[i].sample / rate))
            i += 1
        if samples and n_samples > 0:
            pieces.append(np.ctypeslib.as_array(samples, (n_samples,)).copy())
        return 0

    callback = _SynthCallback(collect)
    with _LOCK:
        _set_voice(library, voice)
        library.espeak_SetParameter(_RATE, rate_wpm, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        library.espeak_SetSynthCallback(callback)
        encoded = text.encode() + b"\0"
        status = library.espeak_Synth(
            encoded, len(encoded), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        library.espeak_Synchronize()
    if status != 0 or not any(event.phone for event in events):
        raise EspeakError(f"voice {voice!r} said nothing for {text!r} (error {status})")
    return np.concatenate(pieces).astype(np.float32) / 32768, rate, events
