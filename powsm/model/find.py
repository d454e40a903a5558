"""Models by name: an experiment folder, a packed folder or archive, or a Hub tag.

Packed folders are as ESPnet publishes them: a `meta.yaml` that names the training
configuration and the weights, which stand below it with the SentencePiece model and
the statistics. A Hub tag is `espnet/powsm`, `espnet/powsm@revision`, or a sub-folder,
`espnet/powsm/textnorm_retrained`.
"""

import argparse
import json
import logging
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import httpx
import torch
from espnet2.s2t.espnet_model import ESPnetS2TModel
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file

from powsm.errors import PowsmError
from powsm.files.archives import unpack
from powsm.files.whole import atomic_write
from powsm.model.s2t import PowsmTask
from powsm.settings import load_yaml

log = logging.getLogger(__name__)

CONFIG_KEY = "s2t_train_config"  # of meta.yaml, as espnet2.bin.pack writes it
WEIGHTS_KEY = "s2t_model_file"
SAFETENSORS = "model.safetensors"  # beside meta.yaml; the same weights, read faster
NORMALISER_FILE = "normaliser.json"  # beside config.yaml; a copy of the training set's

MODEL_HELP = "experiment folder, packed folder or archive, or Hub tag"

# Published before their policies were written down (paper, section 3 and appendix)
PUBLISHED = {
    "espnet/powsm": {"policy": "released", "text_policy": "released"},
    "espnet/powsm/textnorm_retrained": {
        "policy": "powsm_fix",
        "text_policy": "powsm_fix",
    },
}

_TAG = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w.-]+))?((?:/\w[\w.-]*)*)")
# Names of earlier ESPnet versions. The subsampling's Linear once stood in a Sequential
# with the positional encoding, whose table was once stored.
_RENAMED = (
    (re.compile(r"\.embed\.out\.0\.(weight|bias)$"), r".embed.out.\1"),
    (re.compile(r"\.embed\.out\.(weight|bias)$"), r".embed.out.0.\1"),
)
_NO_PARAMETER = re.compile(r"(^|\.)pe$")


class CheckpointError(PowsmError):
    """A model that cannot be found or does not fit; the message says what to do."""


@dataclass(frozen=True)
class ModelFiles:
    """Where the parts of a model are on this machine.

    Attributes:
        source: as the user named it, with the revision if it is from the Hub.
        config_file: ESPnet's training configuration, with the token list.
        weights_file: `.pth` or `.safetensors`.
        bpe_model: SentencePiece model.
        stats_file: global mean and variance, if the model normalises by them.
        normaliser: `policy` and `text_policy` of the training set, `version` where it
            is known; empty if nothing tells.
    """

    source: str
    config_file: Path
    weights_file: Path
    bpe_model: Path
    stats_file: Path | None
    normaliser: Mapping[str, str]

    def describe(self) -> str:
        """One line: what is loaded and how its training set was normalised."""
        if not self.normaliser:
            made_with = "how its training set was normalised is not recorded"
        else:
            made_with = (
                f"trained on phones by policy {self.normaliser['policy']} and "
                f"text by policy {self.normaliser['text_policy']}"
            )
        return f"model {self.source}: {self.weights_file.name}, {made_with}"


# ------------------------------------------------------------------------ finding


def find_model(source: str | Path, model_file: Path | None = None) -> ModelFiles:
    """Find a model's parts; downloads or unpacks what is not there yet.

    Args:
        source: experiment folder, packed folder or archive, or Hub tag. What is on
            the disk is taken first.
        model_file: other weights than the averaged or packed ones.

    Raises:
        CheckpointError: there is no such model, or a part of it is missing.
        ArchiveError: an archive that cannot be unpacked.
    """
    path = Path(source)
    name = str(source)
    if path.is_dir():
        if (path / "config.yaml").exists():
            weights = model_file or default_weights(path)
            config = path / "config.yaml"
            return _model_files(name, config, weights, path.parents, packed=False)
        return _packed(name, path, model_file)
    if path.is_file():
        return _packed(name, unpack(path), model_file)
    match = _TAG.fullmatch(name)
    if match is None:
        raise CheckpointError(
            f"{name}: no such folder or archive, nor the form of a Hub tag "
            "(espnet/powsm, espnet/powsm@revision, espnet/powsm/sub_folder)"
        )
    return _from_hub(name, *match.groups(), model_file)


def keep_normaliser(train_set: Path, exp: Path) -> None:
    """Let an experiment remember how the phones and text of its training set are."""
    record = train_set / NORMALISER_FILE
    if record.exists():
        with atomic_write(exp / NORMALISER_FILE) as file:
            file.write(record.read_text("utf-8"))


def default_weights(exp: Path) -> Path:
    """The averaged model of an experiment folder.

    Raises:
        CheckpointError: there is none.
    """
    averages = sorted(Path(exp).glob("valid.*.ave.pth"))
    if not averages:
        raise CheckpointError(
            f"{exp}: no valid.*.ave.pth; run stage 11 to its end, or name the weights"
        )
    return averages[0]


def _packed(name: str, root: Path, model_file: Path | None) -> ModelFiles:
    """A folder in the published layout, with or without its `meta.yaml`."""
    if (root / "meta.yaml").exists():
        meta = load_yaml(root / "meta.yaml")
        try:
            config = meta["yaml_files"][CONFIG_KEY]
            weights = meta["files"][WEIGHTS_KEY]
        except (KeyError, TypeError) as err:
            raise CheckpointError(
                f"{root}/meta.yaml names no {CONFIG_KEY} and {WEIGHTS_KEY}: it is not "
                "the packed model of an S2T recipe"
            ) from err
        # espnet2.bin.pack records absolute paths, but stores them below the root
        config, weights = (root / str(p).lstrip("/") for p in (config, weights))
    else:
        found = sorted(root.glob("exp/*/config.yaml"))
        found = [path for path in found if list(path.parent.glob("*.pth"))]
        if len(found) != 1:
            raise CheckpointError(
                f"{root}: neither config.yaml (an experiment) nor meta.yaml (a packed "
                f"model) is there, and {len(found)} models are in exp/"
            )
        config = found[0]
        weights = sorted(config.parent.glob("*.pth"))[0]
    if (root / SAFETENSORS).exists():
        weights = root / SAFETENSORS
    roots = (root, root.parent)  # a sub-folder's config may speak of the whole
    return _model_files(name, config, model_file or weights, roots)


def _from_hub(
    name: str, repo: str, revision: str | None, folder: str, model_file: Path | None
) -> ModelFiles:
    folder = folder.strip("/")
    prefix = f"{folder}/" if folder else ""
    parts = ("meta.yaml", "exp/*.yaml", "exp/*.npz", "exp/*.json", "data/*")
    small = [prefix + part for part in parts]
    if folder:  # its config may name files of the whole
        small += ["exp/*.npz", "data/*"]
    root = _download(name, repo, revision, small)
    revision = root.name  # the commit
    if not (root / folder).is_dir():
        raise CheckpointError(f"{name}: {repo} has no folder {folder} on the Hub")
    if model_file is None:
        _download(name, repo, revision, [prefix + SAFETENSORS])
        if not (root / prefix / SAFETENSORS).exists():
            _download(name, repo, revision, [prefix + "exp/*.pth"])
    plain = "/".join(filter(None, (repo, folder)))
    found = _packed(f"{plain}@{revision[:12]}", root / folder, model_file)
    if found.normaliser or plain not in PUBLISHED:
        return found
    return replace(found, normaliser=PUBLISHED[plain])


def _download(name: str, repo: str, revision: str | None, patterns: list[str]) -> Path:
    """A snapshot of a repository with the files that match; its name is the commit."""
    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=patterns, library_name="espnet"
        )
    except (httpx.HTTPError, LocalEntryNotFoundError) as err:
        raise CheckpointError(f"{name}: {_why(err, repo, revision)}") from err
    return Path(folder)


def _why(err: Exception, repo: str, revision: str | None) -> str:
    """Why a download failed, and what to do."""
    hub = constants.ENDPOINT
    if isinstance(err, RevisionNotFoundError):
        return f"{repo} has no revision {revision}"
    if isinstance(err, GatedRepoError):
        return f"access to {hub}/{repo} must be asked for there; then set HF_TOKEN"
    if isinstance(err, RepositoryNotFoundError):
        return (
            f"no such folder here, and no model {repo} at {hub}; a private one needs "
            "HF_TOKEN"
        )
    if isinstance(err, HfHubHTTPError):
        status = err.response.status_code
        advice = "is HF_TOKEN right?" if status in (401, 403) else "try again later"
        return f"{hub} answered {status}; {advice}"
    if isinstance(err, LocalEntryNotFoundError):
        return (
            f"no such folder here, not in the cache {constants.HF_HUB_CACHE}, and "
            f"{hub} cannot be reached"
        )
    return f"the transfer from {hub} failed ({err}); try again, it goes on where it was"


def _model_files(
    name: str,
    config_file: Path,
    weights_file: Path,
    roots: Sequence[Path],
    packed: bool = True,
) -> ModelFiles:
    for path in (config_file, weights_file):
        if not path.exists():
            raise CheckpointError(f"{name}: {path} is not there")
    config = load_yaml(config_file)
    if config.get("model") == "espnet_ctc":
        raise CheckpointError(
            f"{name}: a CTC-only model; this recipe decodes encoder-decoder models "
            "(espnet2.bin.s2t_inference does both)"
        )
    bpe_model = _locate(config_file, "bpemodel", config.get("bpemodel"), roots, packed)
    stats_file = None
    if config.get("normalize") == "global_mvn":
        stats = (config.get("normalize_conf") or {}).get("stats_file")
        stats_file = _locate(
            config_file, "normalize_conf.stats_file", stats, roots, packed
        )
    record = config_file.parent / NORMALISER_FILE
    normaliser = json.loads(record.read_text("utf-8")) if record.exists() else {}
    return ModelFiles(
        name, config_file, weights_file, bpe_model, stats_file, normaliser
    )


def _locate(
    config_file: Path, key: str, value: str | None, roots: Sequence[Path], packed: bool
) -> Path:
    """A file that a configuration names as the machine of its training did.

    In a packed model that is the longest tail of the path that exists below its root.
    An experiment may name files elsewhere, and moves with the folders around it.
    """
    if not value:
        raise CheckpointError(f"{config_file}: {key} is not set")
    parts = PurePosixPath(value.lstrip("/")).parts
    below = [
        root.joinpath(*parts[start:]) for start in range(len(parts)) for root in roots
    ]
    if packed or not Path(value).is_absolute():
        candidates = [*below, Path(value)]
    else:
        candidates = [Path(value), *below]
    for path in candidates:
        if path.is_file():
            return path
    raise CheckpointError(
        f"{config_file}: {key} is {value}, which is neither here nor below {roots[0]}"
    )


# ----------------------------------------------------------------------- loading


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Parameters by name, on the CPU.

    Raises:
        CheckpointError: not a file of parameters alone, or damaged.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as err:
        raise CheckpointError(
            f"{path}: not a file of model parameters, or damaged: "
            f"{str(err).splitlines()[0]}"
        ) from err
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


def load_weights(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], origin: str
) -> None:
    """Put parameters into a model; all of them, and nothing else.

    Args:
        origin: where they come from, for the message.

    Raises:
        CheckpointError: a parameter is missing, left over or of another shape.
    """
    own = model.state_dict()
    state = current_names(state, own)
    faults = [f"{name} is missing" for name in own if name not in state]
    faults += [f"{name} is left over" for name in state if name not in own]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, the configuration wants "
        f"{tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(
            f"{origin} does not fit its configuration: {'; '.join(faults[:5])}{more}"
        )
    model.load_state_dict(state, strict=True)


def load_model(files: ModelFiles, device: str = "cpu") -> ESPnetS2TModel:
    """Build a found model and load every parameter; in evaluation mode.

    Where the configuration wants flash-attn, PyTorch's own attention kernel computes
    the same.

    Raises:
        CheckpointError: this ESPnet cannot build it, or the parameters do not fit.
    """
    config = load_yaml(files.config_file)
    for part in ("encoder_conf", "decoder_conf"):
        conf = dict(config.get(part) or {})
        if conf.get("use_flash_attn"):
            conf |= {"use_flash_attn": False, "use_sdpa": True}
        config[part] = conf
    if files.stats_file is not None:
        config["normalize_conf"] = {
            **config["normalize_conf"],
            "stats_file": str(files.stats_file),
        }
    config["init"] = None  # every parameter is about to be replaced
    config.setdefault("input_size", None)
    try:
        model = PowsmTask.build_model(argparse.Namespace(**config))
    except (TypeError, KeyError, AttributeError, ValueError) as err:
        raise CheckpointError(
            f"{files.config_file}: this version of ESPnet cannot build it: {err}"
        ) from err
    load_weights(model, read_weights(files.weights_file), str(files.weights_file))
    return model.to(device).eval()
