"""X-SAMPA as IPA, by PanPhon's table and what is missing in it.

Symbols that neither has stay as they are, so that the normaliser counts them as
unknown; PanPhon's own converter leaves them out without a word.

Source: J. C. Wells, Computer-coding the IPA: a proposed extension of SAMPA (1995).
"""

import csv
import re
from functools import cache

from powsm.phones.inventory import panphon_file

_MISSING = {  # from PanPhon 0.22.2
    "v\\": "ʋ",
    "x\\": "ɧ",
    "=\\": "ǂ",
    "I\\": "ᵻ",
    "U\\": "ᵿ",
    "`": "\u02de",  # behind vowels; t` and its like have rows
    "_j": "ʲ",
    "_~": "\u0303",
    "_=": "\u0329",
    "_R": "\u030c",
    "_F": "\u0302",
}


@cache
def _table() -> dict[str, str]:
    with open(panphon_file("ipa-xsampa.csv"), encoding="utf-8", newline="") as file:
        return {row["X-SAMPA"]: row["IPA"] for row in csv.DictReader(file)} | _MISSING


@cache
def _symbol() -> re.Pattern[str]:
    symbols = sorted(_table(), key=lambda symbol: (-len(symbol), symbol))
    return re.compile("|".join(map(re.escape, symbols)))


def xsampa_to_ipa(label: str) -> str:
    r"""IPA of an X-SAMPA label; the longest symbol counts.

    >>> [xsampa_to_ipa(label) for label in ("v\\", "t_j", "dZ", "$")]
    ['ʋ', 'tʲ', 'd͡ʒ', '$']
    """
    return _symbol().sub(lambda match: _table()[match[0]], label)
