"""The phones of many recordings, the worst said first."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from powsm.decode.align_files import Segment

_COLUMNS = "phone n gop gop_free below_0 rival rival_n".split()


@dataclass(frozen=True)
class PhoneScore:
    """How well a phone was said, over all its occurrences.

    Attributes:
        phone: without what tells one occurrence from another.
        n: occurrences.
        gop, gop_free: means, see `powsm.decode.pronunciation.goodness`.
        n_below: occurrences in whose place another phone fits better (`gop_free` < 0).
        rival, n_rival: what that is most often, and how often; `-`: no phone. Empty
            and 0 where there is none.
    """

    phone: str
    n: int
    gop: float
    gop_free: float
    n_below: int
    rival: str
    n_rival: int


def worst_phones(segments: Iterable[Segment]) -> list[PhoneScore]:
    """Phones by their mean `gop_free`, lowest first; segments not judged are left out.

    >>> of = {"gop": 5.0, "gop_free": 4.0, "rival": "b"}
    >>> said = [Segment("p", 0.0, 0.1, 0.9, **of)]
    >>> said += [Segment("s", 0.1, 0.2, 0.1, None, -2.0, g, "θ") for g in (-3, 1)]
    >>> [(s.phone, s.gop_free, s.n_below, s.rival) for s in worst_phones(said)]
    [('s', -1.0, 1, 'θ'), ('p', 4.0, 0, '')]
    """
    by_phone = defaultdict(list)
    for segment in segments:
        if segment.gop is not None:
            by_phone[segment.phone].append(segment)
    scores = []
    for phone, said in by_phone.items():
        below = [s for s in said if s.gop_free < 0]
        rivals = Counter(s.rival for s in below).most_common(1)
        rival, n_rival = rivals[0] if rivals else ("", 0)
        means = [sum(getattr(s, k) for s in said) / len(said) for k in _COLUMNS[2:4]]
        scores.append(PhoneScore(phone, len(said), *means, len(below), rival, n_rival))
    return sorted(scores, key=lambda score: (score.gop_free, score.phone))


def worst_tsv(scores: Sequence[PhoneScore]) -> str:
    """A table with tabs, a line a phone, under the names of the columns."""
    rows = [
        (
            s.phone,
            s.n,
            f"{s.gop:.3f}",
            f"{s.gop_free:.3f}",
            s.n_below,
            s.rival,
            s.n_rival,
        )
        for s in scores
    ]
    return "".join("\t".join(map(str, row)) + "\n" for row in (_COLUMNS, *rows))
