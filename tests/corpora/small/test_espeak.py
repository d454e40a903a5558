"""espeak-ng: labels with words apart, speech with times."""

import numpy as np
import pytest

from powsm.corpora.small import espeak


def test_version_is_that_of_the_wheel():
    assert espeak.version().startswith("1.5")


@pytest.mark.parametrize(
    ("voice", "text", "ipa"),
    [
        ("en-us", "b", "bˈiː"),  # a letter is called by its name
        ("en-us", "A.M.", "ˌeɪˈɛm"),
        ("en-us", "judge, judge", "dʒˈʌdʒ dʒˈʌdʒ"),  # two clauses, one line
        ("es-419", "contraseña", "kˌontɾasˈeɲa"),
        ("es-419", "vacías", "basˈias"),  # hiatus; without the accent [ˈasjas]
        ("it", "chiave", "kjˈave"),
        ("ru", "пароль", "parˈoɭ"),
        ("da", "hus", "hˈus"),  # espeak-ng has hˈʔus, kˈ?ɑfə, tˈ?ɑk
        ("da", "kaffe", "kˈɑfə"),
        ("da", "tak", "tˈɑk"),
        ("am", "ጡሩንባ", "tʼˈurunɨβa"),
        ("ga", "athair", "ˈahər"),
        ("pa", "ਲੜੀਬੱਧ", "ləɽˈibədʰ"),
        ("en-us", "", ""),
        ("en-us", " ... ", ""),
    ],
)
def test_text_to_ipa_known_values(voice, text, ipa):
    assert espeak.text_to_ipa(text, voice) == ipa


def test_glottal_stops_of_other_languages_stay():
    assert "ʔ" in espeak.text_to_ipa("anak bapak", "ms")
    assert "ʔ" in espeak.text_to_ipa("تعویض", "fa")


@pytest.mark.parametrize("voice", ["it", "ru", "el"])
def test_text_to_ipa_has_no_marks_of_a_language_switch(voice):
    ipa = espeak.text_to_ipa("Bluetooth weekend", voice)
    assert "(" not in ipa
    assert len(ipa.split()) == 2


def test_text_to_ipa_is_the_same_after_other_voices():
    first = espeak.text_to_ipa("little bottle", "en-us")
    espeak.text_to_ipa("bonjour", "fr")
    espeak.synthesise("hello", "en-us")
    assert espeak.text_to_ipa("little bottle", "en-us") == first


def test_all_voices_speak_their_language():
    assert all(espeak.text_to_ipa("a", voice) for voice in espeak.VOICES.values())


def test_unknown_voice_names_the_known_ones():
    with pytest.raises(espeak.EspeakError, match="'xx-none'.*eng=en-us"):
        espeak.text_to_ipa("hello", "xx-none")


def test_nul_in_text_is_an_error_not_a_cut():
    with pytest.raises(espeak.EspeakError, match="NUL"):
        espeak.text_to_ipa("hello\0world", "en-us")


def test_synthesise_gives_audible_speech_with_phones_in_order():
    samples, rate_hz, events = espeak.synthesise("hello judge", "en-us")
    assert (samples.dtype, samples.ndim, rate_hz) == (np.float32, 1, 22050)
    assert 0.1 < np.abs(samples).max() <= 1
    phones = [event.phone for event in events if event.phone]
    assert phones == ["h", "ə", "l", "ˈoʊ", "dʒ", "ˈʌ", "dʒ"]
    starts = [event.start_s for event in events]
    assert starts == sorted(starts)
    assert starts[0] >= 0
    assert starts[-1] <= len(samples) / rate_hz


def test_synthesise_longer_text_takes_longer():
    short, _, _ = espeak.synthesise("one", "en-us")
    long, _, _ = espeak.synthesise("one two three four five", "en-us")
    assert len(long) > 2 * len(short)


def test_synthesise_text_without_sound_is_an_error():
    with pytest.raises(espeak.EspeakError, match="said nothing"):
        espeak.synthesise("", "en-us")
