"""Test sets with human phone transcripts, as PRiSM and Kaldi users have them.

A folder with `wav.scp` and `text.good` (or `text`) becomes a set of `dump/raw` that can
be decoded and scored, but not trained on: it has no examples but phone recognition,
and audio-guided G2P where the orthography is known.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from powsm.audio import SAMPLE_RATE, n_samples_of
from powsm.corpora.utterance import make_utt_id, safe_id
from powsm.errors import PowsmError
from powsm.files.audio_places import AudioRef
from powsm.files.datadir import (
    NORMALISER_FILE,
    RAW_REFERENCES,
    SET_FILE,
    write_kaldi_speakers,
    write_scp,
)
from powsm.files.text import read_text
from powsm.files.transcripts import read_transcripts
from powsm.files.whole import atomic_folder, write_json
from powsm.languages import UNKNOWN_LANGUAGE, lang_code
from powsm.phones.normaliser import Normaliser, strip_suprasegmentals
from powsm.phones.orthography import normalise_text
from powsm.phones.unknown import MAX_UNKNOWN_RATE, Unknown, judge_unknown
from powsm.tasks import PHONES, examples, strip_prompt, tasks_writing

log = logging.getLogger(__name__)

TEXT_POLICY = "powsm_fix"

REFERENCES = ("text.good", "text")
# PRiSM says the language in text.lang, or in the prompt with which its text begins
LANGUAGE_FILES = ("text.lang", "utt2lang", "text")
_TASKS = tasks_writing(PHONES)  # what human phones are the answer to
ORTHOGRAPHY = ("text.asr",)


class PhoneSetError(PowsmError):
    """A folder that is not a test set; the message names the file."""


@dataclass(frozen=True)
class PhoneSet:
    """What was written.

    Attributes:
        n_utts: utterances kept.
        hours: of audio.
        dropped: utterances without a phone in their reference.
    """

    n_utts: int
    hours: float
    dropped: tuple[str, ...]


def write_phone_set(
    folder: Path,
    out: Path,
    lang: str | None = None,
    text_policy: str = TEXT_POLICY,
    max_unknown_rate: float = MAX_UNKNOWN_RATE,
    about: Mapping[str, object] | None = None,
) -> PhoneSet:
    """Write a set of `dump/raw` from a folder of recordings and phone transcripts.

    Args:
        folder: `wav.scp` (audio files or places in shards; relative names are looked
            up here, in the folders around this one, and in the working directory),
            `text.good` or `text` (IPA), and, where the languages are known, `text.lang`
            or `utt2lang`; `utt2spk` and the orthography in `text.asr` if there are any.
        out: `dump/raw/test_<name>`.
        lang: language of all utterances, when no file says it.
        text_policy: of the orthography, as that of the model that will be scored.
        max_unknown_rate: of the IPA characters, as in stage 4.
        about: what the folder was made of, for `set.json`.

    Raises:
        PhoneSetError: a file is missing, utterances differ between files, or audio is a
            pipe or not there.
        UnknownSymbolsError: more of the IPA characters are unknown.
        AudioError: audio that cannot be read, or of several channels.
    """
    folder, out = Path(folder), Path(out)
    audio, refs = _audio_and_references(folder)
    langs = _languages(folder, refs, lang)
    speakers = _read(folder, ("utt2spk",), optional=True)
    texts = _without_prompts(_read(folder, ORTHOGRAPHY, optional=True))
    normaliser = Normaliser(english_rules=False)  # the labels are human
    name = out.name.removeprefix("test_")
    rows: dict[str, list[tuple[str, str]]] = {}
    dropped = []
    n_total = 0
    unknown = Unknown()
    for key in sorted(refs):
        segments = normaliser.segment(refs[key], langs[key])
        unknown.add(key, refs[key], segments)
        phones = segments.phones
        if not phones:
            dropped.append(key)
            continue
        location = _location(folder, key, audio[key])
        n_samples = n_samples_of(location)
        n_total += n_samples
        utt_id = make_utt_id(name, key, langs[key])
        ctc_phones = strip_suprasegmentals(phones)
        text = normalise_text(texts.get(key, ""), langs[key], text_policy)
        for example in examples(utt_id, langs[key], phones, ctc_phones, text, _TASKS):
            for file, value in (
                ("wav.scp", location),
                ("text", example.text),
                ("text.prev", example.text_prev),
                ("text.ctc", example.text_ctc),
                ("utt2lang", langs[key]),
                ("utt2speaker", safe_id(speakers.get(key, "")) or utt_id),
                ("utt2num_samples", str(n_samples)),
            ):
                rows.setdefault(file, []).append((example.example_id, value))
        rows.setdefault("ref.ipa", []).append((utt_id, refs[key]))
        rows.setdefault(RAW_REFERENCES, []).append((utt_id, refs[key]))
        rows.setdefault("ref.text", []).append((utt_id, text))
    judge_unknown(unknown, folder, max_unknown_rate)
    if not rows:
        raise PhoneSetError(f"{folder}: no transcript holds a phone")
    record = {
        "policy": normaliser.policy,
        "version": normaliser.version,
        "text_policy": text_policy if any(texts.values()) else "none",
    }
    made_of = {**(about or {}), "no_phone": dropped}
    _write_set(out, rows, {NORMALISER_FILE: record, SET_FILE: made_of})
    n_utts = len(rows["ref.ipa"])
    return PhoneSet(n_utts, n_total / SAMPLE_RATE / 3600, tuple(dropped))


def _audio_and_references(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Places of the audio and transcripts by utterance, of the same utterances."""
    audio = _read(folder, ("wav.scp",))
    refs = _without_prompts(_read(folder, REFERENCES))
    if audio.keys() != refs.keys():
        odd = sorted(audio.keys() ^ refs.keys())
        raise PhoneSetError(
            f"{folder}: {len(odd)} utterances are in only one of wav.scp and the "
            f"transcripts: {' '.join(odd[:3])}"
        )
    return audio, refs


def _write_set(
    out: Path,
    rows: Mapping[str, list[tuple[str, str]]],
    records: Mapping[str, Mapping[str, object]],
) -> None:
    """Write the files of a set and its records, or nothing."""
    with atomic_folder(out) as making:
        for file, lines in rows.items():
            write_scp(making / file, sorted(lines))
        write_kaldi_speakers(making)
        for name, record in records.items():
            write_json(making / name, record)


def _read(
    folder: Path, names: tuple[str, ...], optional: bool = False
) -> dict[str, str]:
    """The first of some files that is there."""
    for name in names:
        if (folder / name).exists():
            return read_transcripts(folder / name)
    if optional:
        return {}
    raise PhoneSetError(f"{folder}: no {' or '.join(names)}")


def _without_prompts(texts: Mapping[str, str]) -> dict[str, str]:
    """References as PRiSM has them begin with the prompt of a model."""
    return {key: strip_prompt(text) for key, text in texts.items()}


def _languages(
    folder: Path, refs: Mapping[str, str], lang: str | None
) -> dict[str, str]:
    """ISO 639-3 of each utterance; `und` where nothing is known."""
    labels = _said_languages(folder)
    if lang and lang_code(lang) is None:
        raise PhoneSetError(f"--lang {lang}: no such language; try ISO 639-3")
    if lang and any(map(lang_code, set(labels.values()))):
        raise PhoneSetError(
            f"--lang {lang}: {folder} says the languages of its utterances itself; "
            "leave --lang out, or correct them there"
        )
    codes = {}
    for key in refs:
        label = labels.get(key) or labels.get(f"{key}_pr", "")  # PRiSM's examples
        codes[key] = lang_code(lang or label) or UNKNOWN_LANGUAGE
    n_unknown = sum(code == UNKNOWN_LANGUAGE for code in codes.values())
    if n_unknown:
        log.warning("%s: the language of %d utterances is not known", folder, n_unknown)
    return codes


def _said_languages(folder: Path) -> dict[str, str]:
    """Spelling of a language by utterance, `eng` or `<eng><pr>... ` as PRiSM has it."""
    for name in LANGUAGE_FILES:
        is_reference = name == "text" and not (folder / REFERENCES[0]).exists()
        if (folder / name).exists() and not is_reference:
            lines = read_text(folder / name).split("\n")
            rows = (line.split(maxsplit=1) for line in lines if line.strip())
            return {
                row[0]: row[1].strip("< ").partition(">")[0]
                for row in rows
                if len(row) > 1 and (name != "text" or row[1].startswith("<"))
            }
    return {}


def _location(folder: Path, key: str, value: str) -> str:
    if value.endswith("|"):
        raise PhoneSetError(
            f"{folder}/wav.scp: {key} is a pipe ({value}); write its audio to a file"
        )
    ref = AudioRef.parse(value)
    for around in (folder, *folder.resolve().parents[:3], Path()):
        if (around / ref.path).is_file():
            return str(replace(ref, path=(around / ref.path).resolve()))
    raise PhoneSetError(f"{folder}/wav.scp: {key}: no file {value}")
