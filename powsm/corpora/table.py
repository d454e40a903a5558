"""The corpora: IPAPack++'s ten and the two small ones that install from Debian.

A corpus lies in `downloads/<name>_shar/<split>/`. MLS has a folder, and so a row and
a test set, for each of its seven languages. Names, hours and languages of IPAPack++
are those of Zhu et al. (2025, arXiv 2505.23170) and of POWSM (arXiv 2510.24992).

New corpus: a row here; when it has to be built first, a module beside this one.
"""

from dataclasses import dataclass
from typing import Literal

SHAR_SUFFIX = "_shar"  # downloads/<name>_shar
TEST_PREFIX = "test_"
ABOUT = "corpus.yaml"  # in the folder of a corpus that has no row: what it is


@dataclass(frozen=True)
class Corpus:
    """What is known of a corpus before any of its files is read.

    Attributes:
        name: folder name without `_shar`; letters, digits and `_`.
        labels: where the phones come from: "g2p" (a program read the orthography) or
            "human" (someone listened).
        languages: ISO 639-3; () when each utterance says its own.
        licence: of the audio; empty when it differs within the corpus.
        hours: published size; None when it is not published.
        test_only: no part of it may be trained on, whatever its folders are called.
    """

    name: str
    labels: Literal["g2p", "human"]
    languages: tuple[str, ...] = ()
    licence: str = ""
    hours: float | None = None
    test_only: bool = False


_MLS = (  # language, ISO 639-3, hours of training speech
    ("dutch", "nld", 1554.2),
    ("french", "fra", 1076.6),
    ("german", "deu", 1966.5),
    ("italian", "ita", 247.4),
    ("polish", "pol", 103.6),
    ("portuguese", "por", 161.0),
    ("spanish", "spa", 917.7),
)

_ROWS = (
    Corpus("aishell", "g2p", ("cmn",), "Apache-2.0", 151),
    Corpus("asterisk", "g2p", ("eng", "fra", "ita", "rus", "spa"), "CC-BY-SA-3.0", 1.3),
    # how this folder is called is not documented: rename it, or the row
    Corpus("crowdsourced", "g2p", ("ben", "jav", "sin"), "CC-BY-SA-4.0", 727),
    Corpus("cv", "g2p", (), "CC0-1.0", 7708),
    Corpus("doreco", "human", (), "", 19.18, test_only=True),
    Corpus("fleurs", "g2p", (), "CC-BY-4.0", 544),
    Corpus("gnomehelp", "g2p", ("eng", "fra", "ita", "rus", "spa"), "CC-BY-SA-3.0", 7),
    Corpus("gnomeworld", "g2p", (), "CC-BY-SA-3.0", 6.3),
    Corpus("kazakh", "g2p", ("kaz",), "CC-BY-4.0", 318),
    Corpus("kazakh2", "g2p", ("kaz",), "", 555),
    Corpus("librispeech", "g2p", ("eng",), "CC-BY-4.0", 961),
    *(
        Corpus(f"mls_{language}", "g2p", (code,), "CC-BY-4.0", hours)
        for language, code, hours in _MLS
    ),
    Corpus("stampworld", "g2p", (), "GPL-2.0", 2.5),
    Corpus("tamil", "g2p", ("tam",), "CC-BY-2.0", 133),
    Corpus(
        "tuxpaint",
        "g2p",
        ("bel", "bul", "cat", "dan", "ell", "fra", "ron", "rus", "spa"),
        "GPL-2.0",
        2.1,
    ),
    Corpus(
        "voices",
        "g2p",
        ("cat", "ces", "eng", "fin", "ita", "mar", "rus", "tel"),
        "CC-BY-SA-3.0",
        2.3,
    ),
)

CORPORA: dict[str, Corpus] = {row.name: row for row in _ROWS}


def corpus_row(name: str) -> Corpus:
    """The row of a corpus; one that is not in the table has labels of a program."""
    return CORPORA.get(name) or Corpus(name, "g2p")


def set_name(corpus: str, split_dir: str) -> str:
    """Data directory that a split of a corpus goes to.

    The rule of the published recipe: a folder with "test" in its name is a test set of
    its own, one with "dev" joins `dev`, everything else is `train` (kazakh2 calls a
    folder `audio2`, FLEURS has `<locale>-<split>`). Capitals do not matter. DoReCo is a
    test set throughout.

    >>> set_name("librispeech", "test-clean"), set_name("fleurs", "af_za-dev")
    ('test_librispeech', 'dev')
    >>> set_name("kazakh2", "audio2"), set_name("doreco", "anything")
    ('train', 'test_doreco')
    """
    split_dir = split_dir.casefold()
    test_only = corpus in CORPORA and CORPORA[corpus].test_only
    if test_only or "test" in split_dir:
        return f"{TEST_PREFIX}{corpus}"
    return "dev" if "dev" in split_dir else "train"
