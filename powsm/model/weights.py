"""Weights of a found model: read, named as this ESPnet names them, each one checked."""

import logging
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from espnet2.s2t.espnet_model import ESPnetS2TModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from powsm.errors import PowsmError
from powsm.model.build import build
from powsm.model.find import CheckpointError, ModelFiles, check_hash
from powsm.model.s2t_ctc import PowsmCtcModel
from powsm.settings import load_yaml

log = logging.getLogger(__name__)

# What torch, pickle and safetensors say to bytes that are no file of theirs
_DAMAGE = (
    *(pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OverflowError),
    *(ValueError, TypeError, AttributeError, LookupError, struct.error),
)

# Names of earlier ESPnet versions. The subsampling's Linear once stood in a Sequential
# with the positional encoding, whose table was once stored.
_RENAMED = (
    (re.compile(r"\.embed\.out\.0\.(weight|bias)$"), r".embed.out.\1"),
    (re.compile(r"\.embed\.out\.(weight|bias)$"), r".embed.out.0.\1"),
)
_NO_PARAMETER = re.compile(r"(^|\.)pe$")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Parameters by name, on the CPU.

    Raises:
        CheckpointError: not a file of parameters alone, or damaged.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (*_DAMAGE, OSError) as err:
        if getattr(err, "filename", None):  # it cannot be read, and says so
            raise
        fault = (str(err).splitlines() or [type(err).__name__])[0]
        raise CheckpointError(
            f"{path}: not a file of model parameters, or damaged: {fault}"
        ) from err
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(state).__name__}, expected parameters by name"
        )
    others = [k for k, v in state.items() if not isinstance(v, torch.Tensor)]
    if others:
        raise CheckpointError(
            f"{path}: holds {' '.join(map(str, others[:3]))} besides parameters: a "
            "checkpoint of training? Take valid.*.pth or *epoch.pth"
        )
    return state


def current_names(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Parameters under the names of this ESPnet, `own`; unknown ones stay as they are.

    >>> old, new = "encoder.embed.out.0.bias", "encoder.embed.out.bias"
    >>> list(current_names({old: 0, "x.pe": 0}, {new: 0})) == [new]
    True
    """
    renamed = {}
    for name, value in state.items():
        if name not in own and _NO_PARAMETER.search(name):
            continue
        for pattern, current in _RENAMED:
            candidate = pattern.sub(current, name)
            if name not in own and candidate in own and candidate not in state:
                log.info("parameter %s is %s in this ESPnet", name, candidate)
                name = candidate
        renamed[name] = value
    return renamed


def names_for_all(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters under the names that every ESPnet reads, for files that leave us.

    Those up to 202511, and PRiSM's classes, know the subsampling's Linear by its
    earlier name alone; later ones read both.

    >>> list(names_for_all({"encoder.embed.out.bias": 0, "decoder.embed.0.weight": 0}))
    ['encoder.embed.out.0.bias', 'decoder.embed.0.weight']
    """
    pattern, earlier = _RENAMED[1]
    return {pattern.sub(earlier, name): value for name, value in state.items()}


def load_weights(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], origin: str
) -> None:
    """Put parameters into a model; all of them, and nothing else.

    Args:
        origin: where they come from, for the message.

    Raises:
        CheckpointError: a parameter is missing, left over, of another shape or not
            finite.
    """
    own = model.state_dict()
    state = current_names(state, own)
    faults = [f"{name} is missing" for name in own if name not in state]
    faults += [f"{name} is left over" for name in state if name not in own]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, the configuration wants "
        f"{tuple(value.shape)}"
        + " (model_conf.ctc_vocab: of all tokens, or of phones alone)"
        * name.startswith("ctc.ctc_lo.")
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    faults += [
        f"{name} holds values that are no finite numbers"
        for name, value in state.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(
            f"{origin} does not fit its configuration: {'; '.join(faults[:5])}{more}"
        )
    model.load_state_dict(state, strict=True)


def _check_stats(path: Path) -> None:
    """Mean and variance are there to be read; ESPnet's own messages name no file."""
    try:
        stats = np.load(path)
        if not isinstance(stats, np.ndarray):  # which older ESPnets wrote
            with stats:
                _ = [stats[key] for key in ("count", "sum", "sum_square")]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as err:
        raise CheckpointError(
            f"{path}: not ESPnet's mean and variance, or damaged; fetch the model again"
        ) from err


def load_model(
    files: ModelFiles, device: str = "cpu"
) -> ESPnetS2TModel | PowsmCtcModel:
    """Build a found model and load every parameter; in evaluation mode.

    What its CTC head was taught is its attribute `ctc_target`.

    Where the configuration wants flash-attn, PyTorch's own attention kernel computes
    the same.

    Raises:
        CheckpointError: this ESPnet cannot build it, or the parameters do not fit.
    """
    config = load_yaml(files.config_file)
    # which packing keeps apart: older ESPnets do not know the key
    has_sdpa = (config.get("powsm") or {}).get("use_sdpa") or ()
    for part in ("encoder_conf", "decoder_conf", "promptencoder_conf"):
        if part == "promptencoder_conf" and not config.get(part):
            continue
        conf = dict(config.get(part) or {})
        if part in has_sdpa:
            conf["use_sdpa"] = True
        if conf.get("use_flash_attn"):
            conf |= {"use_flash_attn": False, "use_sdpa": True}
        config[part] = conf
    if files.stats_file is not None:
        _check_stats(files.stats_file)
        config["normalize_conf"] = {
            **config["normalize_conf"],
            "stats_file": str(files.stats_file),
        }
    config["init"] = None  # every parameter is about to be replaced
    try:
        model = build(config)
    except KeyError as err:
        raise CheckpointError(
            f"{files.config_file}: no setting {err}; is the file whole?"
        ) from err
    except (TypeError, AttributeError, ValueError) as err:
        raise CheckpointError(
            f"{files.config_file}: this version of ESPnet cannot build it: {err}"
        ) from err
    model.ctc_target = (config.get("powsm") or {}).get("ctc_target") or "phones"
    check_hash(files.weights_file, files.weights_sha256)
    load_weights(model, read_weights(files.weights_file), str(files.weights_file))
    return model.to(device).eval()


def device_of(asked: str | None) -> str:
    """The device that is asked for; `auto` and None take a GPU where there is one.

    Raises:
        PowsmError: there is no such device.
    """
    has_gpu = torch.cuda.is_available()
    if asked in (None, "auto"):
        return "cuda" if has_gpu else "cpu"
    name, _, number = asked.partition(":")
    if name not in ("cpu", "cuda") or not (number or "0").isdecimal():
        raise PowsmError(f"device {asked!r}: expected auto, cpu, cuda or cuda:1")
    if name == "cuda" and not has_gpu:
        raise PowsmError(f"device {asked!r}: no GPU that PyTorch can use; try cpu")
    if name == "cuda" and int(number or "0") >= torch.cuda.device_count():
        raise PowsmError(
            f"device {asked!r}: there are {torch.cuda.device_count()} GPUs"
        )
    return asked
