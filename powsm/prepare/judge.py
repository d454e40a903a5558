"""One judgement of an utterance, by stage 4 and by the data report alike.

What an utterance's labels come to, and why it is left out if it is.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from powsm.corpora.table import CORPORA, corpus_row
from powsm.files.datadir import CLEAN_LABELS, UTTERANCE_FILES
from powsm.files.whole import read_json
from powsm.phones.normaliser import Normaliser, Segmentation, strip_suprasegmentals
from powsm.phones.orthography import normalise_text
from powsm.phones.slashed import to_slashed
from powsm.prepare.filters import Limits, audio_drop_reason, phones_drop_reason
from powsm.prepare.merge import SUMMARY

# The file of each kind of labels: as the corpus has them, or IPAPack++'s simplified
LABELS = {"original": "text.ipa", "clean": CLEAN_LABELS}
_CORPUS_NAME_PARTS = 3  # names like `mls_dutch` have an underscore


def default_labels(policy: str) -> str:
    """The labels that the public recipe with the phones of a policy segmented.

    The file with the rules of `released` read the simplified ones; that of January
    2026, with the rules of `powsm_fix`, the original ones.

    >>> default_labels("released"), default_labels("strict")
    ('clean', 'original')
    """
    return "clean" if policy == "released" else "original"


def labels_of_set(dset: str, labels: str) -> str:
    """Those of train and dev; test sets have the original ones, as published.

    >>> labels_of_set("dev", "clean"), labels_of_set("test_cv", "clean")
    ('clean', 'original')
    """
    return "original" if dset.startswith("test") else labels


def human_corpora(data_dir: Path) -> tuple[str, ...]:
    """The corpora of a set that were imported as transcribed by people."""
    path = data_dir / SUMMARY
    record = read_json(path, "run stage 1 again") if path.is_file() else {}
    return tuple(record.get("human", ()))


def label_files(labels: str) -> list[str]:
    """`UTTERANCE_FILES` with the file of these labels in the place of `text.ipa`."""
    return [LABELS[labels] if n == "text.ipa" else n for n in UTTERANCE_FILES]


@dataclass(slots=True)  # frozen would cost time, for each of 16 million
class Judged:
    """What an utterance's labels come to.

    Attributes:
        phones: of the targets, in the spelling of the inventory.
        ctc_phones: of the CTC targets: under `strict` without stress and length.
        text: normalised orthography; empty when there is none.
        reason: why the utterance is left out; None when it stays.
        segments: what the normaliser made of the labels, unknown symbols included.
        is_human: whether a person listened and wrote the labels.
    """

    phones: tuple[str, ...]
    ctc_phones: tuple[str, ...]
    text: str
    reason: str | None
    segments: Segmentation
    is_human: bool

    def reference(self, ipa: str) -> str:
        """The reference of scoring: a person's labels as they are, else our phones."""
        return ipa if self.is_human else to_slashed(self.phones)


def judge(
    utt_id: str,
    *,
    ipa: str,
    text: str,
    lang: str,
    n_samples: int,
    limits: Limits,
    policy: str = "strict",
    text_policy: str = "powsm_fix",
    human: Collection[str] = (),
) -> Judged:
    """Judge one utterance of `data/`.

    Args:
        utt_id: begins with the name of its corpus.
        ipa: labels as the corpus gives them.
        text: orthography as the corpus gives it.
        limits: those of its set, `Limits.for_set`.
        policy: of phones.
        text_policy: of the orthography.
        human: corpora that people transcribed, beside those of the table.
    """
    corpus = corpus_of(utt_id)
    is_human = corpus in human or corpus_row(corpus).labels == "human"
    normaliser = normaliser_of(policy, not is_human)
    segments = normaliser.segment(ipa, lang)
    phones = segments.phones
    if policy == "strict":
        ctc_phones = strip_suprasegmentals(phones)
    else:  # the public recipe segments twice
        ctc_phones = normaliser.ctc_phones(ipa, lang)
    reason = audio_drop_reason(limits, lang=lang, n_samples=n_samples)
    reason = reason or phones_drop_reason(
        limits, n_samples=n_samples, phones=phones, ctc_phones=ctc_phones
    )
    normalised = normalise_text(text, lang, text_policy)
    return Judged(phones, ctc_phones, normalised, reason, segments, is_human)


def corpus_of(utt_id: str) -> str:
    """The corpus named at the start of an id.

    Of a corpus that is not in the table it is what is before the first `_`.

    >>> corpus_of("mls_dutch_123_nld")
    'mls_dutch'
    """
    name = ""
    for part in utt_id.split("_", _CORPUS_NAME_PARTS)[:_CORPUS_NAME_PARTS]:
        name = f"{name}_{part}" if name else part
        if name in CORPORA:
            return name
    return utt_id.partition("_")[0]


@cache
def normaliser_of(policy: str, english_rules: bool) -> Normaliser:
    """The normaliser of a policy, made once: its tables are large."""
    return Normaliser(policy=policy, english_rules=english_rules)
