"""The prompts of Asterisk: what of the text files is said in the recordings."""

import gzip
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from powsm.corpora.small import asterisk
from powsm.corpora.small.asterisk import (
    VOICES,
    fault,
    mend,
    read_g722,
    read_prompts,
)
from powsm.corpora.small.espeak import text_to_ipa


def write_g722(path: Path, duration_s: float = 1.0) -> np.ndarray:
    """Code a tone of 400 Hz; returns it, int16 (n_samples,)."""
    t = np.arange(int(16000 * duration_s)) / 16000
    tone = (8000 * np.sin(2 * np.pi * 400 * t)).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return tone


def write_text(root: Path, code: str, text: str, encoding: str = "utf-8") -> Path:
    folder = root / f"usr/share/doc/asterisk-core-sounds-{code}"
    folder.mkdir(parents=True)
    path = folder / f"core-sounds-{code}.txt.gz"
    path.write_bytes(gzip.compress(text.encode(encoding)))
    return path


@pytest.fixture
def packages(tmp_path):
    """Unpacked packages: `yes` and `no` in all languages, English has more."""
    words = {
        "en": ("yes", "no"),
        "es": ("si", "no"),  # "no" as in English: one text in two languages
        "fr": ("oui", "non"),
        "it": ("sì", "no"),
        "ru": ("да", "нет"),
    }
    for voice in VOICES:
        yes, no = words[voice.code]
        text = f"; a comment\n\na/yes: {yes}\nno: {no}\n"
        sounds = tmp_path / "usr/share/asterisk/sounds" / voice.folder
        for prompt_id in ("a/yes", "no"):
            write_g722(sounds / f"{prompt_id}.g722", 0.7)
        if voice.code == "en":
            text += "nine: Press 9.\nbeep: beep\nlong: too long\ntwice: a\ntwice: b\n"
            text += "unsaid: no recording\n"
            for prompt_id in ("nine", "beep", "twice", "untold"):
                write_g722(sounds / f"{prompt_id}.g722", 0.5)
            write_g722(sounds / "long.g722", 20.5)
        write_text(tmp_path, voice.code, text)
    return tmp_path


def test_read_prompts_skips_mark_comments_and_blank_lines(tmp_path):
    path = write_text(
        tmp_path, "it", "; titolo\n\na: uno:  due \nb:\n; fine\n", encoding="utf-8-sig"
    )
    assert read_prompts(path) == ({"a": "uno: due", "b": ""}, set())


def test_read_prompts_reports_repeated_ids(tmp_path):
    path = write_text(tmp_path, "es", "digits/0: cero\ndigits/0: diez\nb: uno\n")
    assert read_prompts(path)[1] == {"digits/0"}


def test_read_prompts_without_colon_names_file_and_line(tmp_path):
    path = write_text(tmp_path, "en", "; x\nactivated Activated.\n")
    with pytest.raises(ValueError, match=r"txt\.gz:2: 'activated Activated\.'"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("lang", "written", "meant"),
    [
        ("spa", "Su contrasena, manana", "Su contraseña, mañana"),
        ("spa", "NUMERO", "Número"),  # only the first capital is kept
        ("spa", "Entrada incorrecta. Buzon?", "Entrada incorrecta. Buzón?"),
        ("spa", "atravez del proceso", "a través del proceso"),
        ("ita", "La conferenza ? piena.", "La conferenza è piena."),
        ("ita", "più tardi? sì", "più tardi? sì"),  # a real question mark
        ("ita", "non pu? essere", "non può essere"),
        ("fra", "Desole, vous avez des problemes", "Désolé, vous avez des problèmes"),
        ("rus", "первoe", "первое"),  # "oe" were Latin letters
        ("eng", "Numero", "Numero"),  # each language has its own table
    ],
)
def test_mend_known_values(lang, written, meant):
    assert mend(written, lang) == meant


def test_mended_spanish_is_labelled_with_its_own_sounds():
    assert "ɲ" in text_to_ipa(mend("contrasena", "spa"), "es-419")
    assert "ɲ" not in text_to_ipa("contrasena", "es-419")


@pytest.mark.parametrize(
    ("prompt_id", "text", "lang", "reason"),
    [
        ("vm-and", "and", "eng", None),
        ("letters/a", "a", "eng", None),
        ("digits/a-m", "A.M.", "eng", None),
        ("conf-thereare", "ci sono attualmente…", "ita", None),
        ("call-fwd-on-busy", "Переадресация, если «занято»", "rus", None),
        ("vm-incorrect-mailbox", "Casella di posta?", "ita", None),
        ("confbridge-join", "un suono di beep", "ita", "not_speech"),
        ("silence/3", "tre secondi", "ita", "not_speech"),
        ("beeperr", "", "eng", "not_speech"),
        ("dir-welcome", "", "spa", "no_text"),
        ("dir-welcome", "...", "spa", "no_text"),
        ("dir-multi9", "Press 9", "eng", "digits"),
        ("letters/dash", "dash [-]", "eng", "remark"),
        ("spy-nbs", "N B S (in inglese)", "ita", "remark"),
        ("dictate/both_help", "press * to toggle", "eng", "symbol"),
        ("demo-moreinfo", "visite www.asterisk.org", "spa", "symbol"),
        ("vm-tempremoved", "eliminato vm-then-pound: poi", "ita", "two_lines"),
        ("conf-full", "La conferenza ? piena", "ita", "damaged"),
        ("vm-first", "первoe", "rus", "script"),  # Latin o and e
        ("demo-moreinfo", "Asterisk", "rus", "script"),
    ],
)
def test_fault_known_values(prompt_id, text, lang, reason):
    assert fault(prompt_id, text, lang, duration_s=1.0) == reason


def test_fault_of_duration():
    assert fault("a", "a", "eng", 20.0) is None
    assert fault("a", "a", "eng", 20.001) == "too_long"
    assert fault("a", "a", "eng", 0) == "no_audio"


def test_read_g722_gives_two_samples_a_byte(tmp_path):
    path = tmp_path / "a.g722"
    tone = write_g722(path, 0.5)
    samples = read_g722(path)
    assert len(samples) == 2 * path.stat().st_size == len(tone)
    # the codec delays by 22 samples and is lossy: compare energy, not samples
    assert np.std(samples.astype(float)) == pytest.approx(np.std(tone), rel=0.05)


def test_read_g722_of_an_empty_file_is_an_error(tmp_path):
    path = tmp_path / "empty.g722"
    path.touch()
    with pytest.raises(ValueError, match="empty.g722"):
        read_g722(path)


def test_select_keeps_labels_and_counts(packages):
    selection = asterisk.select(packages, seed=0)
    clips = {c.clip_id: c for clips in selection.splits.values() for c in clips}
    assert sorted(clips) == sorted(
        f"{voice.lang}-{name}" for voice in VOICES for name in ("a-yes", "no")
    )
    yes = clips["spa-a-yes"]
    assert (yes.language, yes.speaker, yes.text) == ("es", "allison", "si")
    assert yes.ipa == "sˈi"
    assert yes.duration_s == pytest.approx(0.7)
    assert len(yes.read_samples()) == 11200
    assert selection.left_out["eng"] == Counter(
        digits=1, not_speech=1, too_long=1, repeated_id=1, no_text=1
    )
    assert selection.left_out["rus"] == Counter()


def test_select_puts_a_prompt_in_one_split_in_all_languages(packages):
    for seed in range(20):
        splits = asterisk.select(packages, seed).splits
        of_no = [s for s, cs in splits.items() for c in cs if c.clip_id.endswith("no")]
        assert len(of_no) == len(VOICES)
        assert len(set(of_no)) == 1


def test_select_names_everything_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"core-sounds-en.*ru_RU_f"):
        asterisk.select(tmp_path, seed=0)
