"""Classes of phones for a confusion table: manner, place, voicing, vowel height.

The classes are those of the IPA chart (`ipa_chart.csv`), which a phonetician
reads at a glance. PanPhon's features, by which phones are scored, would put [ə] with
the back vowels.
"""

import csv
import unicodedata
from functools import cache
from importlib.resources import files

# Classes in the order in which a chart lists them.
PROPERTIES: dict[str, tuple[str, ...]] = {
    "manner": (
        "plosive",
        "affricate",
        "fricative",
        "nasal",
        "trill or tap",
        "approximant",
        "lateral",
        "click",
        "vowel",
        "other",
    ),
    "place": (
        "bilabial",
        "labiodental",
        "dental or alveolar",
        "postalveolar",
        "retroflex",
        "palatal",
        "velar",
        "uvular",
        "pharyngeal",
        "glottal",
        "front vowel",
        "central vowel",
        "back vowel",
        "other",
    ),
    "voicing": ("voiceless", "voiced", "vowel", "other"),
    "height": (
        "close",
        "close-mid",
        "mid",
        "open-mid",
        "open",
        "consonant",
        "other",
    ),
}

_DEVOICED = frozenset("\u0325\u030a")  # rings below and above
_VOICED = "\u032c"  # caron below


@cache
def _chart() -> dict[str, dict[str, str]]:
    text = files("powsm.phones").joinpath("ipa_chart.csv").read_text(encoding="utf-8")
    return {row.pop("letter"): row for row in csv.DictReader(text.splitlines())}


@cache
def classes(phone: str) -> dict[str, str]:
    """The class of a phone for each of `PROPERTIES`.

    Two joined letters take the place of the second; a plosive joined to a fricative is
    an affricate. What is not on the chart (tone letters) is "other" throughout.

    >>> classes("t͡ʃ")["manner"], classes("t͡ʃ")["place"], classes("n̥")["voicing"]
    ('affricate', 'postalveolar', 'voiceless')
    """
    chart = _chart()
    marks = unicodedata.normalize("NFD", phone)
    letters = [chart[char] for char in marks if char in chart]
    if not letters:
        return dict.fromkeys(PROPERTIES, "other")
    named = dict(letters[-1])
    if len(letters) > 1 and named["manner"] == "fricative":
        named["manner"] = "affricate"
    if named["manner"] != "vowel":
        if _DEVOICED & set(marks):
            named["voicing"] = "voiceless"
        elif _VOICED in marks:
            named["voicing"] = "voiced"
    return named
