"""The CTC head taught Unicode code points of phones instead of phones (figure 2).

A phone like pʰ is then two symbols, p and ʰ, and tʃ̰ʷː six. No token of the vocabulary
spells a bare mark, so each code point takes a token of its own that CTC is never taught
otherwise: the phone that it is, or else a piece of orthography. Which token is of no
consequence to training, as the head's rows begin alike.
"""

from collections.abc import Iterable, Sequence

from powsm.errors import PowsmError
from powsm.phones.normaliser import Normaliser
from powsm.phones.slashed import from_slashed
from powsm.vocabulary.phone_sets import is_phone

PREFIX = "code_points"  # of the CTC targets that need this


class CodePointError(PowsmError):
    """A vocabulary that cannot spell its phones in code points."""


class CodePoints:
    """Spells phones in code points and reads them back.

    Args:
        tokens: all tokens of the model.

    Raises:
        CodePointError: too few tokens for the code points of its phones.

    >>> points = CodePoints(["<blank>", "<unk>", "/p/", "/pʰ/", "▁a", "<eos>"])
    >>> points.encode("/p//pʰ/"), points.phones([2, 2, 4])
    ([2, 2, 4], ['p', 'pʰ'])
    """

    def __init__(self, tokens: Sequence[str]):
        phones = [token[1:-1] for token in tokens if is_phone(token)]
        chars = sorted({char for phone in phones for char in phone})
        of_phone = {t[1:-1]: i for i, t in enumerate(tokens) if is_phone(t)}
        # from the end: the rarest pieces come last
        spare = (
            i
            for i in range(len(tokens) - 1, 0, -1)
            if not is_phone(tokens[i]) and not tokens[i].startswith("<")
        )
        try:
            self._ids = {
                c: of_phone[c] if c in of_phone else next(spare) for c in chars
            }
        except StopIteration as err:
            raise CodePointError(
                f"ctc_target code_points needs a token for each of {len(chars)} code "
                "points, and the vocabulary has too few pieces of orthography; raise "
                "--nbpe"
            ) from err
        self._chars = {i: char for char, i in self._ids.items()}
        self._normaliser = Normaliser(english_rules=False)

    def encode(self, slashed: str) -> list[int]:
        """Token ids of `/p//pʰ/`, one a code point.

        Raises:
            CodePointError: a phone that is no token of the model.
        """
        text = "".join(from_slashed(slashed))
        try:
            return [self._ids[char] for char in text]
        except KeyError as err:
            raise CodePointError(
                f"{slashed!r}: {err} is in no phone of the vocabulary; is the token "
                "list that of this dump folder?"
            ) from err

    def phones(self, token_ids: Iterable[int]) -> list[str]:
        """The phones that code points spell: the longest ones, from the left."""
        text = "".join(self._chars.get(i, "") for i in token_ids)
        return list(self._normaliser.segment(text).phones)
