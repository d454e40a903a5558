"""Evaluation sets by name: from where a corpus lies to a set of `dump/raw`.

A set is made from a Kaldi folder as PRiSM publishes them, or by the module of its
corpus in `powsm.corpora.table`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from powsm.audio import WINDOW_S
from powsm.corpora.evaluation import (
    buckeye,
    drc_se,
    epadb,
    l2arctic,
    speechocean762,
    timit,
    tusom2021,
    voxangeles,
)
from powsm.corpora.evaluation.dump_set import (
    TEXT_POLICY,
    PhoneSet,
    PhoneSetError,
    write_phone_set,
)
from powsm.corpora.evaluation.kaldi_folder import (
    LEFT_OUT,
    LeftOut,
    Segment,
    Written,
    write_segments,
)
from powsm.corpora.evaluation.published import published_segments
from powsm.corpora.table import TEST_PREFIX
from powsm.phones.unknown import MAX_UNKNOWN_RATE

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """What a set is made of."""

    segments: Callable[[Path, LeftOut], Iterable[Segment]]  # of the original
    published: bool = False  # also in a copy of anyspeech's or KoelLabs', as English
    max_duration_s: float | None = None


SOURCES: Mapping[str, Source] = {
    "test_buckeye": Source(buckeye.segments, published=True),
    "test_drc_se": Source(drc_se.segments, published=True, max_duration_s=WINDOW_S),
    "test_epadb": Source(epadb.segments, published=True, max_duration_s=WINDOW_S),
    "test_l2arctic": Source(l2arctic.segments, published=True),
    "test_speechocean762": Source(
        speechocean762.segments, published=True, max_duration_s=WINDOW_S
    ),
    "test_speechocean762_test": Source(
        partial(speechocean762.segments, part="test"), max_duration_s=WINDOW_S
    ),
    "test_timit": Source(timit.segments),
    "test_tusom2021": Source(tusom2021.segments),
    "test_voxangeles": Source(voxangeles.segments),
}
EVAL_FOLDER = "eval"  # in data/: what is made of licensed originals


def write_kaldi_folder(
    name: str, source: Path, folder: Path, allow_incomplete: bool = False
) -> Written:
    """Write a set of `SOURCES` as a Kaldi folder, from the original or a copy.

    Raises:
        CorpusError: the source is not what the set is made of.
    """
    made_of = SOURCES[name]
    left_out = LeftOut(allow_incomplete)
    segments = (
        published_segments(source, "eng", left_out) if made_of.published else None
    )
    if segments is None:
        segments = made_of.segments(source, left_out)
    return write_segments(folder, segments, left_out, made_of.max_duration_s)


def prepare_eval_set(
    name: str,
    source: Path,
    data: Path,
    dump: Path,
    lang: str | None = None,
    text_policy: str = TEXT_POLICY,
    max_unknown_rate: float = MAX_UNKNOWN_RATE,
    allow_incomplete: bool = False,
) -> PhoneSet:
    """Write `<dump>/<name>`, by way of a Kaldi folder `<data>/eval/<name>`.

    Args:
        name: `test_timit`; a Kaldi folder may have any name that begins so.
        source: where the corpus or its published copy lies; a Kaldi folder is read
            as it is.
        data: the recipe's `data` folder.
        dump: `dump/raw`.
        lang: language of all utterances of a Kaldi folder, when no file says it.
        text_policy: of `powsm.phones.orthography`, for the prompts and references.
        max_unknown_rate: of the IPA characters, as in stage 4.
        allow_incomplete: make a smaller set of a copy that lacks parts of the corpus.

    Raises:
        CorpusError, PhoneSetError: the source is not what the set is made of.
    """
    source = Path(source)
    about = None
    if not name.startswith(TEST_PREFIX):
        raise PhoneSetError(f"{name}: the name of a set begins with {TEST_PREFIX}")
    if not source.is_dir():
        raise PhoneSetError(f"{source}: no such folder, where {name} should come from")
    if not (source / "wav.scp").is_file():
        if name not in SOURCES:
            raise PhoneSetError(
                f"{source}: no wav.scp, and {name} is none of {' '.join(SOURCES)}"
            )
        folder = data / EVAL_FOLDER / name
        written = write_kaldi_folder(name, source, folder, allow_incomplete)
        log.info("%s: %s", name, written.summary())
        if written.left_out.ids:
            named, file = written.left_out.named(), folder / LEFT_OUT
            log.info("%s: left out, all in %s: %s", name, file, named)
        if missing := written.left_out.missing:
            log.warning("%s: incomplete, without %s", name, " ".join(missing))
        source = folder
        left_out = written.left_out
        about = {"left_out": left_out.counts(), "missing": left_out.missing}
    made = write_phone_set(
        source,
        dump / name,
        lang=lang,
        text_policy=text_policy,
        max_unknown_rate=max_unknown_rate,
        about=about,
    )
    if made.dropped:
        log.info(
            "%s: %d transcripts without a phone are left out: %s",
            name,
            len(made.dropped),
            " ".join(made.dropped[:10]),
        )
    return made
