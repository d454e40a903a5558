"""One judgement of an utterance, by stage 4 and by the data report alike.

What an utterance's labels come to, and why it is left out if it is.
"""

from dataclasses import dataclass
from functools import cache

from powsm.corpora.table import CORPORA, corpus_row
from powsm.phones.normaliser import Normaliser, Segmentation, strip_suprasegmentals
from powsm.phones.orthography import normalise_text
from powsm.phones.slashed import to_slashed
from powsm.prepare.filters import Limits, audio_drop_reason, phones_drop_reason

_CORPUS_NAME_PARTS = 3  # names like `mls_dutch` have an underscore


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
) -> Judged:
    """Judge one utterance of `data/`.

    Args:
        utt_id: begins with the name of its corpus.
        ipa: labels as the corpus gives them.
        text: orthography as the corpus gives it.
        limits: those of its set, `Limits.for_set`.
        policy: of phones.
        text_policy: of the orthography.
    """
    is_human = corpus_row(corpus_of(utt_id)).labels == "human"
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
