"""CTC prefix beam search, one recording and one prefix after the other.

What `powsm.decode.ctc_paths.ctc_prefix_beam` does for several recordings at once, and
has to give to the last bit.
"""

import math
from collections.abc import Sequence

from powsm.decode.ctc_paths import CTCHypothesis

_NEVER = float("-inf")


def prefix_beam(
    blanks: list[float],
    ids: list[list[int]],
    values: list[list[float]],
    blank: int,
    beam_size: int,
) -> list[CTCHypothesis]:
    """One utterance. A prefix is (parent prefix, token), made once, so that equal
    prefixes are the same object and compare without walking along them."""
    root = (None, -1)
    interned: dict[tuple[int, int], tuple] = {}
    # prefix id -> (prefix, log p ending in blank, log p ending in its last token)
    beam = {id(root): (root, 0.0, _NEVER)}
    for frame_blank, frame_ids, frame_values in zip(blanks, ids, values, strict=True):
        grown: dict[int, list] = {}

        def add(prefix, by_blank, by_token, grown=grown):
            entry = grown.setdefault(id(prefix), [prefix, _NEVER, _NEVER])
            entry[1] = _log_add(entry[1], by_blank)
            entry[2] = _log_add(entry[2], by_token)

        for prefix, in_blank, in_token in beam.values():
            total = _log_add(in_blank, in_token)
            add(prefix, total + frame_blank, _NEVER)
            for token, value in zip(frame_ids, frame_values, strict=True):
                if token == blank or value == _NEVER:
                    continue
                source = total
                if token == prefix[1]:
                    add(prefix, _NEVER, in_token + value)
                    source = in_blank
                key = (id(prefix), token)
                child = interned.setdefault(key, (prefix, token))
                add(child, _NEVER, source + value)
        ranked = sorted(grown.items(), key=lambda item: -_total(item[1]))
        beam = {key: tuple(entry) for key, entry in ranked[:beam_size]}
    hyps = sorted(beam.values(), key=_total, reverse=True)
    return [CTCHypothesis(_spell(entry[0]), float(_total(entry))) for entry in hyps]


def _total(entry: Sequence) -> float:
    return _log_add(entry[1], entry[2])


def _log_add(a: float, b: float) -> float:
    if a < b:
        a, b = b, a
    return a if b == _NEVER else a + math.log1p(math.exp(b - a))


def _spell(prefix: tuple) -> tuple[int, ...]:
    tokens = []
    while prefix[0] is not None:
        prefix, token = prefix
        tokens.append(token)
    return tuple(reversed(tokens))
