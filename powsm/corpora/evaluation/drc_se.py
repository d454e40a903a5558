"""DoReCo, Southern British English (DRC-SE): recordings of oral history, time-aligned.

The paper's set is KoelLabs' copy KoelLabs/DoReCo (0.77 h), without what is longer than
20 s. From the original, by the same rules: the speakers with phones (EN01, EN03), the
annotation units (`ref`) with more than ten labels, from the first phone to 0.3 s after
the last one. X-SAMPA becomes IPA by `powsm.phones.xsampa`.

Licence: each language of DoReCo has its own.
https://doreco.huma-num.fr/languages/sout3282

Layout: `doreco_sout3282_ph.csv` and the recordings, `doreco_sout3282_<file>.wav` or
`<file>.wav`, at any depth; or KoelLabs/DoReCo, see
`powsm.corpora.evaluation.published`.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from powsm.audio import WINDOW_S
from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    LeftOut,
    Segment,
    Written,
    read_table,
)
from powsm.corpora.evaluation.published import write_published_or
from powsm.phones.xsampa import xsampa_to_ipa

SPEAKERS = ("EN01", "EN03")
MIN_LABELS = 11
TAIL_S = 0.3

_PREFIX = "doreco_sout3282_"
_COLUMNS = ("file", "ref", "speaker", "wd_ID", "wd", "ph", "start", "end")
_NO_PHONE = ("<", "[", "*")  # <p:> pause, <<fp>> filled pause, [INT], ****


def prepare_drc_se(
    source: Path, out: Path, *, allow_incomplete: bool = False
) -> Written:
    """Write the set from KoelLabs' copy or the original."""
    return write_published_or(_segments, source, out, allow_incomplete, WINDOW_S)


def _segments(source: Path, left_out: LeftOut) -> Iterator[Segment]:
    tables = sorted(source.rglob(f"{_PREFIX}ph.csv"))
    if not tables:
        raise CorpusError(f"{source}: neither Parquet files nor {_PREFIX}ph.csv")
    audio = {path.stem.removeprefix(_PREFIX): path for path in source.rglob("*.wav")}
    units: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    others: set[tuple[str, str]] = set()
    for row in read_table(tables[0], *_COLUMNS):
        unit = row["file"], row["ref"]
        if row["speaker"] not in SPEAKERS:
            others.add(unit)
        elif not row["ref"].startswith(_NO_PHONE):
            units[unit].append(row)
    for unit in sorted(others):
        left_out.add("speaker_without_phones", _key(*unit))
    for (file_name, ref), rows in sorted(units.items()):
        key = _key(file_name, ref)
        phones = [r for r in rows if r["ph"] and not r["ph"].startswith(_NO_PHONE)]
        path = audio.get(file_name.removeprefix(_PREFIX))
        if path is None:
            left_out.add("no_audio", key)
        elif len(rows) < MIN_LABELS or not phones:
            left_out.add("few_labels", key)
        else:
            words = {r["wd_ID"]: r["wd"] for r in rows}
            try:
                start_s, end_s = float(phones[0]["start"]), float(phones[-1]["end"])
            except ValueError as err:
                fault = f"{err}; is the table cut off?"
                raise CorpusError(f"{tables[0]}: {key}: {fault}") from err
            yield Segment(
                key=key,
                audio=path,
                ipa=" ".join(xsampa_to_ipa(row["ph"]) for row in phones),
                raw=" ".join(row["ph"] for row in rows),
                lang="eng",
                speaker=rows[0]["speaker"],
                text=" ".join(w for w in words.values() if not w.startswith(_NO_PHONE)),
                start_s=start_s,
                end_s=end_s + TAIL_S,
            )


def _key(file_name: str, ref: str) -> str:
    return f"{file_name.removeprefix(_PREFIX)}-{ref}".replace(" ", "_")
