"""Labelled stretches of recordings, from Praat's TextGrid or ELAN's EAF."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from powsm.audio_files import printable
from powsm.corpora.evaluation.textgrid import Interval, TextGridError, read_tiers
from powsm.errors import PowsmError

Tiers = list[tuple[str, list[Interval]]]  # with their names
_KINDS = ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION")  # of ELAN's annotations
TIER_ENDINGS = (".TextGrid", ".textgrid", ".eaf")


class TierError(PowsmError):
    """A file without the tier that is asked for; the message names both."""


def read_stretches(path: Path, tier: str | None = None) -> tuple[str, list[Interval]]:
    """Name of a tier, and its intervals that hold a text, in order of time.

    Args:
        path: TextGrid, or `.eaf`.
        tier: its name, capitals do not matter; None: the only one that there is.

    Raises:
        TierError: not such a file, no such tier, several to choose from, or intervals
            that overlap, have no length, or no time of their own.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise TierError(f"{printable(path)}: cannot be read ({err.strerror})") from err
    if path.suffix.lower() == ".eaf":
        tiers = _read_eaf(data, path)
    else:
        try:
            tiers = read_tiers(data, printable(path))
        except TextGridError as err:
            raise TierError(str(err)) from err
    name, intervals = _chosen(tiers, tier, path)
    stretches = [interval for interval in intervals if interval.label]
    for start_s, end_s, label in stretches:
        if math.isnan(start_s + end_s):
            raise TierError(
                f"{printable(path)}: tier {name}: {label!r} has no time of its own at "
                "one end; give it one in ELAN"
            )
    stretches.sort(key=lambda interval: interval[:2])
    for start_s, end_s, label in stretches:
        if not start_s < end_s:
            raise TierError(
                f"{printable(path)}: tier {name}: {label!r} from {start_s:.3f} to "
                f"{end_s:.3f} s, expected an end after the start; correct it"
            )
    for first, second in zip(stretches[:-1], stretches[1:], strict=True):
        if first.end_s > second.start_s:
            raise TierError(
                f"{printable(path)}: tier {name}: {first.label!r} "
                f"({first.start_s:.3f} to {first.end_s:.3f} s) overlaps "
                f"{second.label!r} ({second.start_s:.3f} s); put them on two tiers"
            )
    return name, stretches


def read_first(path: Path, tiers: Sequence[str]) -> list[Interval]:
    """Intervals of the first of some tiers that is there.

    Raises:
        TierError: see `read_stretches`, of the last of them.
    """
    for tier in tiers[:-1]:
        with suppress(TierError):
            return read_stretches(path, tier)[1]
    return read_stretches(path, tiers[-1])[1]


def _chosen(tiers: Tiers, tier: str | None, path: Path) -> tuple[str, list[Interval]]:
    wanted = [t for t in tiers if tier is None or t[0].casefold() == tier.casefold()]
    if len(wanted) == 1:
        return wanted[0]
    names = f"found {', '.join(name for name, _ in tiers) or 'none'}"
    if tier is None:
        raise TierError(f"{printable(path)}: which tier? {names}; choose by --tier")
    kind = "several tiers are called" if wanted else "no tier"
    raise TierError(f"{printable(path)}: {kind} {tier}; {names}")


def _read_eaf(data: bytes, path: Path) -> Tiers:
    """Tiers with their intervals; a time that an annotation does not have is NaN."""
    try:
        root = ElementTree.fromstring(data)
        _check_origin(root, path)
        times = _times(root)
        return [
            (
                tier.get("TIER_ID") or "",
                [
                    Interval(*times[mark.get("ANNOTATION_ID")], _label(mark))
                    for mark in _annotations(tier)
                ],
            )
            for tier in root.iter("TIER")
        ]
    except (ElementTree.ParseError, ValueError) as err:
        raise TierError(f"{printable(path)}: no EAF of ELAN ({err})") from err


def _check_origin(root: ElementTree.Element, path: Path) -> None:
    """Refuse times that are not those of the sound, as after ELAN's synchronisation."""
    for header in root.iter("HEADER"):
        if (unit := header.get("TIME_UNITS") or "milliseconds") != "milliseconds":
            raise TierError(
                f"{printable(path)}: its times are {unit}, expected milliseconds; save "
                "it by ELAN anew"
            )
    for media in root.iter("MEDIA_DESCRIPTOR"):
        origin = int(media.get("TIME_ORIGIN") or 0)
        if origin and (media.get("MIME_TYPE") or "audio").startswith("audio"):
            raise TierError(
                f"{printable(path)}: its times begin {origin / 1000:g} s into the "
                f"sound {media.get('MEDIA_URL')} (TIME_ORIGIN); cut the sound there "
                "and take the attribute out"
            )


def _times(root: ElementTree.Element) -> dict[str | None, tuple[float, ...]]:
    """Start and end in seconds of each annotation of a file.

    One on a tier below another (ELAN's symbolic association) has the times of the one
    that it belongs to; several that share one (a subdivision) have none.
    """
    slots = {
        slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) / 1000
        for slot in root.iter("TIME_SLOT")
        if slot.get("TIME_VALUE") is not None
    }
    times: dict[str | None, tuple[float, ...]] = {}
    waiting: list[tuple[str, str, bool]] = []
    seen: set[str] = set()
    for tier in root.iter("TIER"):
        marks = _annotations(tier)
        above = Counter(mark.get("ANNOTATION_REF") for mark in marks)
        for mark in marks:
            own, ref = mark.get("ANNOTATION_ID"), mark.get("ANNOTATION_REF")
            if own is None or own in seen:
                raise ValueError(f"annotation {own} is given twice, or has no name")
            seen.add(own)
            if ref is not None:
                waiting.append((own, ref, above[ref] == 1))
            else:
                ends = (mark.get(f"TIME_SLOT_REF{n}") for n in (1, 2))
                times[own] = tuple(slots.get(end, math.nan) for end in ends)
    while waiting:
        later = [row for row in waiting if row[1] not in times]
        if len(later) == len(waiting):
            raise ValueError(
                f"{later[0][0]} refers to {later[0][1]}, which is not there"
            )
        for own, ref, alone in waiting:
            if ref in times:
                times[own] = times[ref] if alone else (math.nan, math.nan)
        waiting = later
    return times


def _annotations(tier: ElementTree.Element) -> list[ElementTree.Element]:
    return [mark for kind in _KINDS for mark in tier.iter(kind)]


def _label(mark: ElementTree.Element) -> str:
    return " ".join((mark.findtext("ANNOTATION_VALUE") or "").split())
