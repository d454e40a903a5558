"""The phones of a vocabulary that are nearest to phones it lacks, by their features."""

from collections.abc import Iterable

import numpy as np

from powsm.phones.inventory import feature_table


def nearest_phones(phones: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Of each phone, the known one whose features differ least.

    PanPhon's 24 features count the same, a step of + to 0 half as much as one of + to
    -; of phones that are as near, the first.

    Args:
        phones: NFD, without length marks.
        known: phones of the vocabulary; those without features are no candidates.

    Returns:
        phone -> known phone; empty where no known phone has features.

    Raises:
        UnknownPhoneError: a phone has no features.

    >>> nearest_phones(["ɢ", "ʘ"], ["t", "p", "ɡ", "q"])
    {'ɢ': 'ɡ', 'ʘ': 'p'}
    """
    table = feature_table()
    phones = list(dict.fromkeys(phones))
    known = [phone for phone in known if phone in table.index]
    if not known or not phones:
        return {}
    its, others = table.of(phones).astype(int), table.of(known).astype(int)
    far = np.abs(its[:, None] - others[None]).sum(axis=2)
    return {phone: known[n] for phone, n in zip(phones, far.argmin(1), strict=True)}
