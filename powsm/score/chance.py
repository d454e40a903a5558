"""What a system that did not listen would score: hypotheses against other references.

On short words or few phones a feature distance is far below 100 % for any output: 26 to
38 % between utterances of one language. A PFER says something beside that number.
"""

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from powsm.score.distance import PhonePairs

NOTHING_SHARE = 0.9  # of the rate of chance: a system that hears nothing is near it
Phones = tuple[str, ...]


def chance_costs(
    hyp: Sequence[Phones], ref: Sequence[Phones], langs: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Feature costs against another utterance's reference of like length.

    The other reference is of the same language if that has two different ones, else of
    any language.

    Args:
        hyp: phones of each hypothesis.
        ref: phones of each reference.
        langs: language of each utterance, where known.

    Returns:
        Costs in units of `PhonePairs.costs` and phones of the other reference, int64,
        both (n_utts,); 0 and 0 where all references are the same.
    """
    partners = other_references(ref, langs)
    others = [ref[partner] if partner >= 0 else () for partner in partners]
    hyps = [hyp[i] if partners[i] >= 0 else () for i in range(len(hyp))]
    pairs = PhonePairs(hyp=hyps, ref=others)
    return pairs.costs("feature"), np.asarray(pairs.n_ref, np.int64)


def other_references(
    ref: Sequence[Phones], langs: Sequence[str] | None = None
) -> list[int]:
    """For each utterance the number of one with another reference of like length.

    >>> other_references([("p",), ("p",), ("a", "t"), ("k", "a", "t")])
    [2, 2, 3, 2]

    Returns:
        -1 where all references are the same.
    """
    partners = [-1] * len(ref)
    groups: dict[str, list[int]] = {}
    for i, lang in enumerate(langs or ()):
        groups.setdefault(lang, []).append(i)
    for group in (*groups.values(), range(len(ref))):
        for i, partner in _partners_within(ref, group):
            if partners[i] < 0:
                partners[i] = partner
    return partners


def _partners_within(
    ref: Sequence[Phones], group: Sequence[int]
) -> list[tuple[int, int]]:
    """(utterance, partner) of a group; nothing where all references are the same."""
    # By length, equal references together; among those of one length the order is that
    # of a checksum: sorted by their phones, neighbours would begin alike.
    order = sorted(group, key=lambda i: (len(ref[i]), crc32(" ".join(ref[i]).encode())))
    pairs = []
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and ref[order[end]] == ref[order[start]]:
            end += 1
        length = len(ref[order[start]])
        near = [order[k] for k in (end, start - 1) if 0 <= k < len(order)]
        if near:
            partner = min(near, key=lambda i: abs(len(ref[i]) - length))
            pairs += [(i, partner) for i in order[start:end]]
        start = end
    return pairs
