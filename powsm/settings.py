"""Settings files: YAML with bases and `key.sub=value` overrides, read without ESPnet.

With `base: ../train_x.yaml` a file holds only what it changes of another, and with
`without: [batch_size]` what it leaves out.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import yaml

from powsm.errors import PowsmError
from powsm.files.text import TextFileError, read_text


class ConfigError(PowsmError):
    """A configuration with faults; the message lists every one of them."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML of settings: 1e-4 is a number, where PyYAML wants 1.0e-4, and only true and
    false are truth values, as in YAML 1.2: `no` is Norwegian."""


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != _BOOL]
    for first, pairs in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _BOOL, re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)

_TextLoader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def load_yaml(path: Path, *, values_as_text: bool = False) -> dict:
    """A YAML file that holds a mapping.

    Args:
        path: the file.
        values_as_text: keep values as they are written, 12.50 with its last digit.

    Raises:
        ConfigError: not readable as YAML, or not a mapping.
    """
    try:
        loader = _TextLoader if values_as_text else _Loader
        config = yaml.load(read_text(path), Loader=loader)
    except TextFileError as err:
        raise ConfigError(str(err)) from err
    except yaml.YAMLError as err:
        fault = " ".join(str(err).split())  # which spans lines
        raise ConfigError(f"{path}: not valid YAML: {fault}") from err
    if not isinstance(config, dict):
        raise ConfigError(
            f"{path}: expected 'key: value' lines, found {type(config).__name__}"
        )
    return config


def load_with_base(path: Path) -> dict:
    """A YAML mapping laid over the one that its key `base` names, if it has one.

    Mappings are merged key by key, everything else is replaced; `without` lists keys of
    the base that the file does not take over. A base may have a base itself.

    Raises:
        ConfigError: no such file, bases in a circle, or a key in `without` that the
            base does not have.
    """
    return _load_with_base(Path(path), ())


def _load_with_base(path: Path, above: tuple[Path, ...]) -> dict:
    config = load_yaml(path)
    without = config.pop("without", None) or []
    if "base" not in config:
        if without:
            raise ConfigError(f"{path}: without: there is no base to take keys from")
        return config
    base_path = path.parent / str(config.pop("base"))
    if not base_path.is_file():
        raise ConfigError(f"{path}: base {base_path}: no such file")
    above = (*above, path.resolve())
    if base_path.resolve() in above:
        raise ConfigError(f"{path}: base {base_path} has this file as a base itself")
    base = _load_with_base(base_path, above)
    if unknown := [key for key in without if key not in base]:
        raise ConfigError(
            f"{path}: without: {base_path} has no {' '.join(map(str, unknown))}"
            f"{nearest(str(unknown[0]), base)}"
        )
    return _merge({k: v for k, v in base.items() if k not in without}, config)


def with_bases(path: Path) -> list[Path]:
    """A settings file and those it is laid over, as far as they are there.

    Raises:
        ConfigError: one is not readable as YAML.
    """
    files: list[Path] = [Path(path)]
    while base := load_yaml(files[-1]).get("base"):
        file = files[-1].parent / str(base)
        if not file.is_file() or file.resolve() in {f.resolve() for f in files}:
            break  # which `load_with_base` tells
        files.append(file)
    return files


def _merge(base: Mapping, changes: Mapping) -> dict:
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            value = _merge(merged[key], value)
        merged[key] = value
    return merged


def apply_overrides(config: Mapping, overrides: Iterable[str]) -> dict:
    """Set `key.sub=value` pairs in a copy of a configuration.

    >>> apply_overrides({"optim_conf": {"lr": 1.0}}, ["optim_conf.lr=0.5", "seed=7"])
    {'optim_conf': {'lr': 0.5}, 'seed': 7}

    Raises:
        ConfigError: a pair without `=`, a value that is no YAML, or a path through
            something that is no mapping.
    """
    config = yaml.safe_load(yaml.safe_dump(dict(config)))
    for pair in overrides:
        path, equals, value = pair.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {pair}: expected key.sub=value")
        *parents, last = path.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(
                    f"--set {pair}: {parent} is {place!r}, it has no keys below it"
                )
        try:
            place[last] = yaml.load(value, Loader=_Loader)
        except yaml.YAMLError as err:
            fault = " ".join(str(err).split())
            raise ConfigError(f"--set {pair}: not a YAML value: {fault}") from err
    return config


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the known word that is nearest, or nothing."""
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown_keys(where: str, conf: Mapping, known: Collection[str]) -> list[str]:
    """Keys that are not known, each with the known one that is nearest."""
    return [
        f"{where}.{key}: unknown{nearest(str(key), known)}"
        for key in conf
        if key not in known
    ]


def value_at(config: Mapping, key: str) -> object:
    """The value of a key such as `model_conf.ctc_weight`; None where it is not set."""
    place: object = config
    for part in key.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place


def fits(value: object, hint: object) -> bool:
    """Whether a value of YAML is of a type hint; hints that are no plain types fit all.

    >>> fits(3, float), fits(True, int), fits("x", int | None), fits([1, 2], Sequence)
    (True, False, False, True)
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if hint is None or hint is type(None):
        return value is None
    kind = origin or hint
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return is_number(value)
    if kind is str:
        return isinstance(value, str)
    if not isinstance(kind, type):
        return True
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if issubclass(kind, Sequence):
        return _fits_list(value, parts, is_tuple=kind is tuple)
    return kind.__module__ != "torch"  # YAML holds no tensors


def type_faults(kind: type, values: Mapping) -> list[str]:
    """What is wrong with values of YAML for the fields of a dataclass."""
    hints = get_type_hints(kind)
    return [
        f"{name} is {value!r}, expected {hint_name(hints[name])}"
        for name, value in values.items()
        if name in hints and not fits(value, hints[name])
    ]


def _fits_list(value: object, parts: tuple, *, is_tuple: bool) -> bool:
    if not isinstance(value, list | tuple):
        return False
    if not parts:
        return True
    if is_tuple and Ellipsis not in parts:
        return len(value) == len(parts) and all(map(fits, value, parts))
    return all(fits(item, parts[0]) for item in value)


def is_number(value: object) -> bool:
    """A finite number, and no truth value."""
    is_plain = isinstance(value, int | float) and not isinstance(value, bool)
    return is_plain and math.isfinite(value)


def hint_name(hint: object) -> str:
    """A type hint as a message says it."""
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    names |= {str: "text", type(None): "none", None: "none"}
    if hint in (bool, int, float, str, None, type(None)):
        return names[hint]
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        shown = [hint_name(p) for p in parts if getattr(p, "__module__", "") != "torch"]
        return " or ".join(dict.fromkeys(shown))
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "'key: value' lines"
    if isinstance(kind, type) and issubclass(kind, Sequence):
        return "a list"
    return str(hint)
