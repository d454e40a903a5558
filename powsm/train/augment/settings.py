"""What `augment:` of a training configuration asks for, and what is wrong with it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from powsm.audio_files import ENDINGS
from powsm.settings import ConfigError, is_number, type_faults, unknown_keys

COLOURS = ("white", "pink")
_FACTORS = (0.5, 2.0)  # beyond them it is no speech
_SNR_DB = (-20.0, 100.0)


@dataclass(frozen=True)
class Noise:
    """Noise that is added to a share of the recordings.

    Args:
        folder: recordings of noise, of any length and rate, looked for below it, too.
        colours: noise that is made, `white` and `pink`; each of them is taken as often
            as the folder.
        snr_db: least and most decibels of the recording above its noise.
        prob: share of the recordings that get some.
    """

    folder: str | None = None
    colours: Sequence[str] = ()
    snr_db: tuple[float, float] = (8.0, 45.0)
    prob: float = 0.3


@dataclass(frozen=True)
class Reverb:
    """Reverberation of made-up rooms.

    Args:
        prob: share of the recordings that get it.
    """

    prob: float = 0.1


@dataclass(frozen=True)
class Augment:
    """What is done to recordings of training, and to no others.

    Args:
        speed: factors, each taken as often as the speed that a recording has; 1.1 makes
            it shorter and higher.
        noise: None leaves it out.
        reverb: None leaves it out.
    """

    speed: Sequence[float] = ()
    noise: Noise | None = None
    reverb: Reverb | None = None

    @classmethod
    def of(cls, conf: Mapping | None) -> Self | None:
        """From YAML; None where it asks for nothing.

        Raises:
            ConfigError: lists all faults.
        """
        if told := faults(conf or {}):
            raise ConfigError("; ".join(told))
        parts = dict(conf or {})
        for name, kind in _PARTS.items():
            if parts.get(name) is not None:
                parts[name] = kind(**parts[name])
        made = cls(**{key: part for key, part in parts.items() if part is not None})
        return made if made.speed or made.noise or made.reverb else None


_PARTS = {"noise": Noise, "reverb": Reverb}


def faults(conf: Mapping) -> list[str]:
    """Everything that is wrong with `augment:`, by key."""
    told = unknown_keys("augment", conf, Augment.__dataclass_fields__)
    told += _speed_faults(conf.get("speed") or [])
    for name, kind in _PARTS.items():
        part = conf.get(name)
        if part is None:
            continue
        where = f"augment.{name}"
        if not isinstance(part, Mapping):
            told.append(f"{where}: {part!r}, expected 'key: value' lines")
            continue
        wrong = unknown_keys(where, part, kind.__dataclass_fields__)
        wrong += [f"{where}.{fault}" for fault in type_faults(kind, part)]
        told += wrong
        prob = part.get("prob", 0)
        if is_number(prob) and not 0 <= prob <= 1:
            told.append(f"{where}.prob: {prob}, expected 0 to 1")
        if name == "noise" and not wrong:
            told += _noise_faults(Noise(**part))
    return told


def _speed_faults(speed: object) -> list[str]:
    least, most = _FACTORS
    expected = f"expected a list of factors, {least:g} to {most:g} and not 1"
    if not isinstance(speed, list | tuple):
        return [f"augment.speed: {speed!r}, {expected}"]
    wrong = [x for x in speed if not is_number(x) or not least <= x <= most or x == 1]
    if wrong:
        return [f"augment.speed: {wrong[0]!r}, {expected}"]
    if len(set(speed)) < len(speed):
        return [f"augment.speed: {list(speed)} names one twice"]
    return []


def _noise_faults(noise: Noise) -> list[str]:
    told = []
    least, most = noise.snr_db
    if not _SNR_DB[0] <= least <= most <= _SNR_DB[1]:
        told.append(
            f"augment.noise.snr_db: {[least, most]}, expected least and most within "
            f"{_SNR_DB[0]:g} to {_SNR_DB[1]:g}"
        )
    for colour in noise.colours:
        if colour not in COLOURS:
            known = " ".join(COLOURS)
            told.append(f"augment.noise.colours: {colour!r}, expected among {known}")
    if noise.folder is None and not noise.colours:
        told.append("augment.noise: neither folder nor colours says what noise")
    if noise.folder is not None and not any(True for _ in recordings(noise.folder)):
        is_there = Path(noise.folder).is_dir()
        fault = "no recording in it" if is_there else "no such folder"
        told.append(f"augment.noise.folder: {noise.folder}: {fault}")
    return told


def recordings(folder: str | Path) -> Iterator[Path]:
    """The recordings below a folder, in no order, known by their endings."""
    return (
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in ENDINGS and path.is_file()
    )
