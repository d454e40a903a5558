"""Languages: ISO 639-3 codes, names, and the language symbols of the vocabulary.

The table in `languages.csv` holds the languages of the published vocabulary.
Macrolanguage codes (`ara`, `swa`, `msa`) are there as published; `zho` is `cmn`.
A language outside the table keeps its own code in data files and reports, while its
symbol in a prompt is `UNKNOWN_LANG_SYM`: an unknown language is a fact about the
recording, an unknown token a failure of the tokenizer, and only the code says which.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

UNKNOWN_LANGUAGE = "und"  # ISO 639-3 "undetermined": no usable label on the recording
UNKNOWN_LANG_SYM = "<unk>"  # what the model is given for a language it was not taught
DROPPED_LANGUAGES = frozenset({"ina"})  # in the vocabulary, left out of training


@dataclass(frozen=True)
class Language:
    """One row of the language table.

    Attributes:
        code: ISO 639-3, as in the published vocabulary.
        name: in English.
        spellings: other ways corpora write it, lower case, `-` between subtags.
        script: ISO 15924 code of the orthography in IPAPack++.
    """

    code: str
    name: str
    spellings: tuple[str, ...]
    script: str


def _key(spelling: str) -> str:
    return " ".join(spelling.casefold().replace("_", "-").split())


def _read_table() -> dict[str, Language]:
    text = files("powsm").joinpath("languages.csv").read_text(encoding="utf-8")
    table = {}
    for row in csv.DictReader(text.splitlines()):
        spellings = tuple(_key(s) for s in row["spellings"].split(";") if s)
        table[row["code"]] = Language(
            code=row["code"],
            name=row["name"],
            spellings=spellings,
            script=row["script"],
        )
    return table


TABLE = _read_table()
LANGUAGES: tuple[str, ...] = tuple(sorted(TABLE))


def _read_spellings() -> dict[str, str]:
    known: dict[str, str] = {}
    for language in TABLE.values():
        for spelling in (language.code, _key(language.name), *language.spellings):
            owner = known.setdefault(spelling, language.code)
            if owner != language.code:
                raise ValueError(
                    f"powsm/languages.csv: spelling {spelling!r} belongs to both "
                    f"{owner} and {language.code}; keep it in one row"
                )
    return known


_CODE_OF_SPELLING = _read_spellings()
# zh-wuu, zh-min-nan, zh-hakka, i-lux: the prefixes that the registry has; elsewhere a
# second part of three letters is a country
_EXTENDED = re.compile(
    r"(?:zh|zho|ar|ara|ms|msa|sw|swa|uz|uzb|lv|lav|kok|sgn)-"
    r"(?:[a-z]{3}|min-nan|hakka|xiang|guoyu)|i-[a-z]+"
)
_NO_LANGUAGE = frozenset({UNKNOWN_LANGUAGE, "mul", "mis", "zxx"})


def lang_code(spelling: str, corpus: str | None = None) -> str | None:
    """ISO 639-3 code for the way a corpus writes a language.

    Knows codes of two and three letters, locales (FLEURS `cmn_hans_cn`, Common Voice
    `zh-HK`), English names and the names of corpora in one language (`mls_german`).
    Other valid ISO codes and names are answered as well, so that a test set in
    an unseen language keeps its label.

    Args:
        spelling: what the corpus says; may be empty.
        corpus: its name, asked when `spelling` is no answer (`kazakh2` says `kaz`).

    Returns:
        The code, or None if neither is understood.

    >>> [lang_code(s) for s in ("af_za", "zh-HK", "zh-TW", "mls_german", "swh")]
    ['afr', 'yue', 'cmn', 'deu', 'swa']
    >>> lang_code("", corpus="aishell"), lang_code("evn"), lang_code("?")
    ('cmn', 'evn', None)
    >>> [lang_code(s) for s in ("zh-min-nan", "zh-wuu", "zh-Hant-HK", "mul")]
    ['nan', 'wuu', 'yue', None]
    >>> [lang_code(s) for s in ("no_language", "no-label", "ca-valencia", "es_419")]
    [None, None, 'cat', 'spa']
    """
    code = _lookup(spelling or "")
    if code is None and corpus is not None:
        code = _from_table(corpus)  # `cv` is Common Voice here, not Chuvash
    return code


@cache
def _lookup(spelling: str) -> str | None:
    return _from_table(spelling) or _ask_langcodes(_key(spelling))


def _from_table(spelling: str) -> str | None:
    key = _key(spelling)
    first, *rest = key.split("-")
    without_script = "-".join([first, *(tag for tag in rest if len(tag) != 4)])
    for candidate in (spelling.casefold(), key, without_script):
        if candidate in _CODE_OF_SPELLING:
            return _CODE_OF_SPELLING[candidate]
    code = _extended(key) or _CODE_OF_SPELLING.get(first)
    is_tag = all(len(tag) in (2, 4) or tag.isdigit() for tag in rest)
    return code if code is None or is_tag or _is_valid(key) else None


def _is_valid(key: str) -> bool:
    """Whether a tag's later parts are of the registry: `no-label` is not Norwegian."""
    import langcodes  # slow to load, and seldom asked

    return langcodes.tag_is_valid(key)


def _extended(key: str) -> str | None:
    """Language of a tag whose second part names it: zh-wuu, zh-min-nan, ar-arz.

    Those of the registry's extended subtags and grandfathered tags; what langcodes
    makes of them is the language itself.
    """
    first, *rest = key.split("-")
    if not rest or not _EXTENDED.fullmatch(key):
        return None
    import langcodes  # slow to load, and seldom asked

    try:
        if not langcodes.tag_is_valid(key):
            return None
        if len(rest[0]) == 3 and rest[0] != "min" and langcodes.tag_is_valid(rest[0]):
            code = langcodes.get(rest[0], normalize=False).language
        else:
            code = langcodes.get(key).to_alpha3()
    except LookupError:
        return None
    return _CODE_OF_SPELLING.get(code, code)


def _ask_langcodes(key: str) -> str | None:
    if not key:
        return None
    import langcodes  # slow to load, and seldom asked

    try:
        if langcodes.tag_is_valid(key):
            code = langcodes.get(key).to_alpha3()
        else:
            language = langcodes.find(key)
            if _key(language.display_name()) != key:
                return None  # it guesses: "klingonish" would be Klingon
            code = language.to_alpha3()
    except LookupError:
        return None
    code = _CODE_OF_SPELLING.get(code, code)
    return None if code in _NO_LANGUAGE else code


def lang_sym(code: str | None) -> str:
    """Language symbol of a prompt.

    >>> lang_sym("eng"), lang_sym("evn"), lang_sym(None)
    ('<eng>', '<unk>', '<unk>')
    """
    return f"<{code}>" if code in TABLE else UNKNOWN_LANG_SYM


def language_name(code: str) -> str:
    """English name for reports; a code that has none is its own name.

    >>> language_name("cmn"), language_name("evn"), language_name("und")
    ('Mandarin Chinese', 'Evenki', 'unknown language')
    """
    if code in TABLE:
        return TABLE[code].name
    if code == UNKNOWN_LANGUAGE:
        return "unknown language"
    import langcodes

    name = langcodes.Language.make(language=code).display_name()
    return code if name.startswith("Unknown language") else name
