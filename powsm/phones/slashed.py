"""Phones as the model writes them, between slashes: `/pʰ//ɔ/`."""

from collections.abc import Iterable

from powsm.errors import PowsmError


class PhoneFormatError(PowsmError):
    """Text is not a sequence of phones between slashes."""


def to_slashed(phones: Iterable[str]) -> str:
    """Phones as the model writes them.

    Raises:
        PhoneFormatError: a phone is empty or holds a slash or a space.

    >>> to_slashed(("pʰ", "ɔ"))
    '/pʰ//ɔ/'
    """
    phones = tuple(phones)
    if not phones:
        return ""
    text = f"/{'//'.join(phones)}/"
    if text.count("/") == 2 * len(phones) and "" not in phones:
        if len(text.split()) == 1:
            return text
    wrong = next(phone for phone in phones if not _fits_slashes(phone))
    raise PhoneFormatError(
        f"phone {wrong!r} cannot be between slashes: expected text without slashes "
        "and spaces; segment it with powsm.phones.normaliser.Normaliser first"
    )


def _fits_slashes(phone: str) -> bool:
    return bool(phone) and "/" not in phone and not any(map(str.isspace, phone))


def from_slashed(text: str) -> tuple[str, ...]:
    """The exact inverse of `to_slashed`.

    Raises:
        PhoneFormatError: the text is anything else.

    >>> from_slashed("/pʰ//ɔ/")
    ('pʰ', 'ɔ')
    """
    if not text:
        return ()
    phones = tuple(text[1:-1].split("//"))
    if text[0] != "/" or text[-1] != "/" or not all(map(_fits_slashes, phones)):
        raise PhoneFormatError(
            f"{text!r} is not a sequence of phones like '/pʰ//ɔ/'; read text of any "
            "other form with powsm.score.phone_reader.PhoneReader"
        )
    return phones
