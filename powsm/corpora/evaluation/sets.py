"""Evaluation sets by name: from where a corpus lies to a set of `dump/raw`.

A set is made from a Kaldi folder as PRiSM publishes them, or by the module of its
corpus in `powsm.corpora.table`.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from powsm.corpora.evaluation.buckeye import prepare_buckeye
from powsm.corpora.evaluation.drc_se import prepare_drc_se
from powsm.corpora.evaluation.dump_set import (
    TEXT_POLICY,
    PhoneSet,
    PhoneSetError,
    write_phone_set,
)
from powsm.corpora.evaluation.epadb import prepare_epadb
from powsm.corpora.evaluation.kaldi_folder import LEFT_OUT, Written
from powsm.corpora.evaluation.l2arctic import prepare_l2arctic
from powsm.corpora.evaluation.speechocean762 import (
    prepare_speechocean762,
    prepare_speechocean762_test,
)
from powsm.corpora.evaluation.timit import prepare_timit
from powsm.corpora.evaluation.tusom2021 import prepare_tusom2021
from powsm.corpora.evaluation.voxangeles import prepare_voxangeles
from powsm.corpora.table import TEST_PREFIX
from powsm.phones.unknown import MAX_UNKNOWN_RATE

log = logging.getLogger(__name__)

# set -> what writes it as a Kaldi folder
PREPARE: Mapping[str, Callable[..., Written]] = {
    "test_buckeye": prepare_buckeye,
    "test_drc_se": prepare_drc_se,
    "test_epadb": prepare_epadb,
    "test_l2arctic": prepare_l2arctic,
    "test_speechocean762": prepare_speechocean762,
    "test_speechocean762_test": prepare_speechocean762_test,
    "test_timit": prepare_timit,
    "test_tusom2021": prepare_tusom2021,
    "test_voxangeles": prepare_voxangeles,
}
EVAL_FOLDER = "eval"  # in data/: what is made of licensed originals


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
        if name not in PREPARE:
            raise PhoneSetError(
                f"{source}: no wav.scp, and {name} is none of {' '.join(PREPARE)}"
            )
        folder = data / EVAL_FOLDER / name
        written = PREPARE[name](source, folder, allow_incomplete=allow_incomplete)
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
            *(name, len(made.dropped), " ".join(made.dropped[:10])),
        )
    return made
