"""Sets of phones to decode with: those of a language in training, or a list in a file.

Stage 5 counts the phones of each language and writes them beside the tokenizer, where
they go along with the model. Decoding bars every token of the vocabulary that is not in
the set: other phones, pieces of words, symbols.
"""

import csv
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from powsm.errors import PowsmError
from powsm.files.text import TextFileError, open_text, read_text
from powsm.files.whole import read_json, write_json
from powsm.languages import lang_code
from powsm.tasks import WORD_START

log = logging.getLogger(__name__)

COUNTS_FILE = "phones_by_lang.json"

_PHONE_TOKEN = re.compile(r"/([^/\s]+)/")
# columns of tables as PHOIBLE writes them, in lower case, the first that is there
_PHONE_COLUMNS = ("phoneme", "segment", "ipa", "phone")
_LANG_COLUMNS = ("iso6393", "language", "lang")
_RETRACTED = "\u0320"
_ALWAYS_ALLOWED = frozenset({"<blank>", "<eos>", WORD_START})


class PhoneSetError(PowsmError):
    """A set of phones that cannot be used; the message says what to change."""


def count_phones(dump_set: Path) -> dict[str, dict[str, int]]:
    """How often each phone of `text.ctc` occurs in a set of `dump/raw`, by language.

    Each utterance counts once, whatever its tasks. Languages are sorted, the phones of
    each by falling count.

    Raises:
        PhoneSetError: `text.ctc` and `utt2lang` have other keys.
    """
    counts: dict[str, Counter[str]] = {}
    before = None
    with (
        open(dump_set / "text.ctc", encoding="utf-8", newline="\n") as texts,
        open(dump_set / "utt2lang", encoding="utf-8", newline="\n") as langs,
    ):
        for number, (row, lang_row) in enumerate(zip(texts, langs, strict=True), 1):
            key, _, text = row.rstrip("\n").partition(" ")
            lang_key, _, lang = lang_row.rstrip("\n").partition(" ")
            if key != lang_key:
                raise PhoneSetError(
                    f"{dump_set}/text.ctc:{number}: {key!r}, but utt2lang has "
                    f"{lang_key!r} there; run stage 4 again"
                )
            if (utt_id := key.rpartition("_")[0]) != before:
                counts.setdefault(lang, Counter()).update(text[1:-1].split("//"))
            before = utt_id
    return _by_count(counts)


def _by_count(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {lang: dict(counts[lang].most_common()) for lang in sorted(counts)}


def write_counts(dump_set: Path, folder: Path, before: Path | None = None) -> None:
    """Count the phones of a set and write `phones_by_lang.json`.

    Args:
        before: the file of a model that the training on this set begins with, whose
            counts are added where there is one.
    """
    counts = count_phones(dump_set)
    if before is not None and before.is_file():
        added = {lang: Counter(phones) for lang, phones in counts.items()}
        for lang, phones in read_json(before, "take a whole copy of the model").items():
            added.setdefault(lang, Counter()).update(phones)
        counts = _by_count(added)
    write_json(folder / COUNTS_FILE, counts, indent=0)


def phones_of_lang(folder: Path, lang: str) -> tuple[str, ...]:
    """The phones that a language has in training.

    Args:
        folder: of the tokenizer, with `phones_by_lang.json`.
        lang: code or name.

    Raises:
        PhoneSetError: no such file, or a language that training did not have.
    """
    path = Path(folder) / COUNTS_FILE
    if not path.is_file():
        raise PhoneSetError(
            f"{path} is missing, so the phones of {lang} are not known; run stage 5 "
            "again, or name a file with the phones"
        )
    counts = read_json(path, "run stage 5 again")
    code = lang_code(lang) or lang
    if code not in counts:
        raise PhoneSetError(
            f"{lang}: no such file, and training had no language of this name; it had "
            f"{' '.join(counts)}"
        )
    return tuple(counts[code])


def read_phone_set(path: Path) -> tuple[str, ...]:
    """Phones of a text file, apart by white space or slashes, each once.

    Raises:
        PhoneSetError: a symbol that is no phone, or no phones at all.
    """
    try:
        text = read_text(path)
    except TextFileError as err:
        raise PhoneSetError(str(err)) from err
    return parse_phone_set(text, str(path))


def parse_phone_set(text: str, name: str) -> tuple[str, ...]:
    """Phones of a text, apart by white space or slashes, each once.

    An affricate is often written without its tie, as in PHOIBLE, and so it is in a part
    of training labels: two letters that a tie would join are both, and what they join.

    >>> parse_phone_set("a tʃ", "here")
    ('a', 't', 'ʃ', 't͡ʃ')

    Args:
        name: where it is, for errors.

    Raises:
        PhoneSetError: a symbol that is no phone, or no phones at all.
    """
    # half a second, and seldom asked
    from powsm.phones.clusters import TIE
    from powsm.phones.normaliser import Normaliser, segment_ipa

    segmented = Normaliser(english_rules=False).segment(text.replace("/", " "))
    unknown = sorted(
        {drop.char for drop in segmented.dropped if drop.kind == "unknown"}
    )
    if unknown:
        raise PhoneSetError(f"{name}: {' '.join(unknown)} is no IPA; correct it")
    if not segmented.phones:
        raise PhoneSetError(f"{name}: no phones; write them with spaces between them")
    pairs = (segment_ipa(part) for part in text.replace("/", " ").split())
    tied = [TIE.join(pair) for pair in pairs if len(pair) == 2]
    # in t̠ʃ of PHOIBLE the mark says no more than the ʃ
    tied += [pair.replace(_RETRACTED, "") for pair in tied]
    joined = (phones[0] for phones in map(segment_ipa, tied) if len(phones) == 1)
    return tuple(dict.fromkeys([*segmented.phones, *joined]))


def phones_of_tables(path: Path, lang: str = "") -> tuple[str, ...]:
    """Phones of a language in tables as PHOIBLE writes them.

    A row holds a phone in the column `Phoneme` (or `Segment`, `IPA`, `Phone`), and its
    language in `ISO6393` (or `Language`, `Lang`), without which the file's name says
    it. Tones are left out: the model has none.

    Args:
        path: a CSV, or a folder of them.
        lang: code or name; empty where the tables hold one language.

    Raises:
        PhoneSetError: no table, no such column or language, or several of them.
    """
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise PhoneSetError(f"{path}: no CSV in this folder")
    by_lang: dict[str, list[str]] = {}
    for file in files:
        for code, phone in _rows_of_table(file):
            by_lang.setdefault(code, []).append(phone)
    code = (lang_code(lang) or lang) if lang else next(iter(by_lang), "")
    if len(by_lang) > 1 and not lang or code not in by_lang:
        shown = " ".join(sorted(by_lang)[:20])
        fault = f"{lang} is not in it" if lang else f"{len(by_lang)} languages"
        raise PhoneSetError(
            f"{path}: {fault}; write {path}:LANG with one of {shown}"
            + (" ..." if len(by_lang) > 20 else "")
        )
    return parse_phone_set(" ".join(by_lang[code]), f"{path}:{code}")


def _rows_of_table(file: Path) -> Iterator[tuple[str, str]]:
    """(language, phone) of each row."""
    try:
        with open_text(file, newline="") as table:
            rows = csv.DictReader(table)
            columns = {name.lower(): name for name in rows.fieldnames or () if name}
            phone, lang = (
                next((columns[name] for name in names if name in columns), None)
                for names in (_PHONE_COLUMNS, _LANG_COLUMNS)
            )
            if phone is None:
                raise PhoneSetError(
                    f"{file}: no column Phoneme; its columns are {' '.join(columns)}"
                )
            for row in rows:
                text = row[phone] or ""
                if text and (row.get("SegmentClass") or "") != "tone":
                    spelt = (row[lang] if lang else None) or file.stem
                    yield lang_code(spelt) or spelt, text.split("|")[0]
    except (TextFileError, csv.Error) as err:
        raise PhoneSetError(f"{file}: no CSV in UTF-8 ({err})") from err


def barred_tokens(token_list: Sequence[str], phones: Iterable[str]) -> list[int]:
    """Ids of all tokens that are no phone of the set, nor needed to say one.

    Length marks do not matter: with `a` in the set `/aː/` may come out, and with `aː`
    `/a/` may. Phones without a token, which cannot come out, are logged once.

    Raises:
        PhoneSetError: none of the phones has a token.

    >>> barred_tokens(["<blank>", "/p/", "/b/", "/pː/", "▁be", "<eos>"], ["p"])
    [2, 4]
    """
    from powsm.phones.normaliser import strip_suprasegmentals

    allowed = set(strip_suprasegmentals(phones))
    known: set[str] = set()
    barred = []
    for token_id, token in enumerate(token_list):
        match = _PHONE_TOKEN.fullmatch(token)
        if match:
            plain = strip_suprasegmentals((match[1],))
            known.update(plain)
            is_allowed = allowed.issuperset(plain)
        else:
            is_allowed = token in _ALWAYS_ALLOWED
        if not is_allowed:
            barred.append(token_id)
    if not known & allowed:
        raise PhoneSetError(
            f"none of the phones {' '.join(sorted(allowed))} is in the vocabulary; "
            "write them as phones of its token list"
        )
    if lacking := sorted(allowed - known):
        _warn_of_lacking(" ".join(lacking))
    return barred


@cache  # for each batch the same
def _warn_of_lacking(phones: str) -> None:
    log.warning(
        "the vocabulary lacks phones of the set: others come in place of %s", phones
    )


def is_phone(token: str) -> bool:
    """Whether a token is a phone symbol, `/x/`."""
    return _PHONE_TOKEN.fullmatch(token) is not None


def phones_of_tokens(tokens: Iterable[str]) -> list[str]:
    """The phones among output tokens.

    >>> phones_of_tokens(["▁", "/p/", "/ɔː/", "an"])
    ['p', 'ɔː']
    """
    return [m[1] for token in tokens if (m := _PHONE_TOKEN.fullmatch(token))]


def phone_set(asked: str) -> str | tuple[str, ...]:
    """The phones of a decode profile for `all`, a language, a file, or the phones.

    Args:
        asked: `all`; code or name of a language of training; a text file of phones; a
            CSV or a folder of such as PHOIBLE writes them, see `phones_of_tables`,
            where needed with `:` and a language; or phones with spaces between them.

    Raises:
        PhoneSetError: a file that does not hold phones.
    """
    if not asked.strip():
        raise PhoneSetError("phones: none are named; name some, or `all`")
    path = Path(asked)
    table, _, lang = asked.rpartition(":")
    if table and not path.exists() and Path(table).exists():
        return phones_of_tables(Path(table), lang)
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".csv"):
        return phones_of_tables(path)
    if path.is_file():
        return read_phone_set(path)
    if re.search(r"[\s,]|^/.*/$", asked) and "." not in path.name:
        return parse_phone_set(asked.replace(",", " "), "phones")
    return asked
