"""The timing that a model was calibrated to, in a file beside its configuration."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from powsm.decode.timing.blanks import LIMITS, USUAL, Timing
from powsm.errors import PowsmError
from powsm.files.whole import read_json, sha256_file, write_json

log = logging.getLogger(__name__)

BOUNDARIES_FILE = "boundaries.json"
_TIMING, _WEIGHTS = "timing", "weights"
_REMEDY = "remove the file, and run `powsm calibrate` again"


class TimingError(PowsmError):
    """A file of times that cannot be used; the message says what to do."""


def write_timing(
    config_file: Path, timing: Timing, weights: Sequence[str], about: Mapping
) -> Path:
    """Store a timing beside a model's configuration.

    Args:
        weights: digests of the files of weights that it is of, as
            `Recogniser.weights`.
        about: what else goes into the file.
    """
    path = config_file.with_name(BOUNDARIES_FILE)
    row = {_TIMING: asdict(timing), _WEIGHTS: list(weights), **about}
    write_json(path, row)
    return path


def read_timing(config_file: Path, weights: str) -> Timing:
    """The timing of a model; the usual one where none is stored for these weights.

    Raises:
        TimingError: a file that is none.
    """
    row = read_record(config_file)
    if row is None:
        return USUAL
    path = config_file.with_name(BOUNDARIES_FILE)
    if weights not in row[_WEIGHTS]:
        log.warning(
            "%s is of other weights (%s) than these (%s): boundaries are placed as for "
            "models that are not calibrated; run `powsm calibrate` again",
            *(path, " ".join(row[_WEIGHTS]), weights),
        )
        return USUAL
    return _timing(row[_TIMING], path)


def read_record(config_file: Path) -> dict | None:
    """All that the file says; None where there is none."""
    path = config_file.with_name(BOUNDARIES_FILE)
    if not path.exists():
        return None
    row = read_json(path, _REMEDY, keys=(_TIMING, _WEIGHTS))
    weights = row[_WEIGHTS]
    if not isinstance(weights, list) or not all(isinstance(w, str) for w in weights):
        raise TimingError(f"{path}: {_WEIGHTS} is no list of digests; {_REMEDY}")
    return row


def pack_timing(
    config_file: Path, weights_file: Path, packed: Path, copies: Sequence[Path]
) -> None:
    """Store a model's timing beside its packed configuration, as of the copies.

    Args:
        copies: the packed files of its weights.
    """
    row = read_record(config_file)
    if row is None:
        return
    weights = digest(weights_file)
    timing = read_timing(config_file, weights)  # which says if it is of others
    if weights in row[_WEIGHTS]:
        about = {k: v for k, v in row.items() if k not in (_TIMING, _WEIGHTS)}
        write_timing(packed, timing, [digest(path) for path in copies], about)


def digest(weights_file: Path) -> str:
    """By which a file of weights is told, as `Recogniser.weights`."""
    return sha256_file(weights_file)[:12]


def _timing(row: object, path: Path) -> Timing:
    if not isinstance(row, Mapping) or set(row) != set(LIMITS):
        raise TimingError(
            f"{path}: {_TIMING}: expected {' '.join(LIMITS)} and no more; {_REMEDY}"
        )
    for name, (least, most) in LIMITS.items():
        value = row[name]
        if type(value) not in (int, float) or not least <= value <= most:
            raise TimingError(
                f"{path}: {name} is {value!r}, expected a number from {least:g} to "
                f"{most:g}; {_REMEDY}"
            )
    return Timing(**row)
