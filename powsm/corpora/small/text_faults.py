"""Judge the text that comes with a recording: is it what is said?"""

import re
import unicodedata


def text_key(text: str) -> str:
    """What two spellings of the same text share: its letters, bare and in lower case.

    >>> text_key("Désolé, ... (Desole!)") == text_key("desole desole")
    True
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if c.isalpha())


def text_fault(text: str, script: str) -> str | None:
    """Why a text cannot be what is said, in one word; None if it can be.

    Args:
        text: orthography.
        script: of the language, as Unicode names begin: "LATIN", "CYRILLIC", "GREEK".

    >>> text_fault("Press 9 for more.", "LATIN")
    'digits'
    >>> text_fault("Яблоко", "CYRILLIC") is None
    True
    """
    letters = [c for c in text if c.isalpha()]
    rules = (
        ("no_text", not letters),
        # how a number was read is not known
        ("digits", any(c.isnumeric() for c in text)),
        # remarks that are not said: "(in inglese)", "[tentativo di]", "<beep>"
        ("remark", re.search(r"[\[\](){}<>]", text)),
        ("symbol", re.search(r"[*#@/=+&%$€¥]|www\.", text)),
        ("script", any(unicodedata.name(c).split()[0] != script for c in letters)),
    )
    return next((reason for reason, is_so in rules if is_so), None)
