"""The part of a test set in some languages, as a set of its own.

A table of eight languages of FLEURS is made without decoding the other 69.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

from powsm.errors import PowsmError
from powsm.files.current import is_current, states, write_record
from powsm.files.datadir import (
    EXAMPLE_FILES,
    NORMALISER_FILE,
    RAW_REFERENCES,
    read_scp,
    write_kaldi_speakers,
    write_scp,
)
from powsm.files.whole import atomic_folder

_BY_UTTERANCE = ("ref.ipa", RAW_REFERENCES, "ref.text")
_RECORD = "part.json"


class PartError(PowsmError):
    """A part that holds nothing; the message names set and languages."""


def is_part_current(whole: Path, out: Path, langs: Collection[str]) -> bool:
    """Whether a part holds what `write_part` would write now; arguments are the same.

    It does not once the set was made anew, as by another policy.
    """
    return is_current(out / _RECORD, "languages", _made_from(whole, langs))


def _made_from(whole: Path, langs: Collection[str]) -> dict[str, object]:
    names = (*EXAMPLE_FILES, *_BY_UTTERANCE, NORMALISER_FILE)
    files = [whole / name for name in names if (whole / name).exists()]
    return {"langs": sorted(langs), "whole": states(files)}


def write_part(whole: Path, out: Path, langs: Collection[str]) -> int:
    """Write the utterances of some languages of a set of `dump/raw` as another set.

    Args:
        whole: the set.
        out: the folder of its part; replaced as a whole.
        langs: ISO 639-3 codes.

    Returns:
        How many examples it holds.

    Raises:
        PartError: no utterance is in these languages.
    """
    kept = {key for key, lang in read_scp(whole / "utt2lang") if lang in langs}
    if not kept:
        raise PartError(f"{whole}: no utterance in {' '.join(langs)}")
    # an utterance's id is that of its examples without `_<task>`
    utt_ids = {key.rpartition("_")[0] for key in kept}
    with atomic_folder(out) as making:
        for name in EXAMPLE_FILES:
            rows = (row for row in read_scp(whole / name) if row[0] in kept)
            write_scp(making / name, rows)
        for name in _BY_UTTERANCE:
            if (whole / name).exists():
                rows = (row for row in read_scp(whole / name) if row[0] in utt_ids)
                write_scp(making / name, rows)
        write_kaldi_speakers(making)
        shutil.copyfile(whole / NORMALISER_FILE, making / NORMALISER_FILE)
        made_from = _made_from(whole, langs)
        write_record(making / _RECORD, "languages", made_from, making.iterdir())
    return len(kept)
