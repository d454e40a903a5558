"""What identifies the data of a training: sums over stretches of its files."""

import argparse
import hashlib
import os
from pathlib import Path

import numpy as np

from powsm.model.find import find_model
from powsm.train.augment.settings import Augment, recordings

_SET_FILES = ("text", "text.prev", "text.ctc", "utt2num_samples")
_PLACES, _PLACE_BYTES = 64, 1 << 14  # of a file that are read, and bytes of each


def identify(
    args: argparse.Namespace, *, train_folder: Path, valid_folder: Path
) -> dict[str, dict[str, str]]:
    """Digests of what a model is trained on, and where each of them is.

    Of the lines of a set, sizes and stretches at 64 places of each file: a whole read
    of a large corpus takes minutes, and other languages, filters or policies change
    every stretch.
    """
    digests: dict[str, str] = {}
    places: dict[str, str] = {}
    stats = (args.normalize_conf or {}).get("stats_file")
    if args.normalize == "global_mvn" and stats and Path(stats).exists():
        digests["statistics"] = _stats_digest(Path(stats))
        places["statistics"] = str(stats)
    if args.bpemodel and Path(args.bpemodel).exists():
        content = Path(args.bpemodel).read_bytes()
        digests["SentencePiece model"] = hashlib.sha256(content).hexdigest()
        places["SentencePiece model"] = str(args.bpemodel)
    for about, folder in (
        ("training set", train_folder),
        ("validation set", valid_folder),
    ):
        hashed = hashlib.sha256()
        for name in _SET_FILES:
            _hash_stretches(folder / name, hashed)
        digests[about], places[about] = hashed.hexdigest(), str(folder)
    augment = Augment.of(vars(args).get("augment"))
    if augment is not None and augment.noise and augment.noise.folder:
        digests["noise"] = _noise_digest(augment.noise.folder)
        places["noise"] = augment.noise.folder
    if teacher := dict(vars(args).get("model_conf") or {}).get("teacher"):
        hashed = hashlib.sha256()
        _hash_stretches(find_model(teacher).weights_file, hashed)
        digests["teacher"], places["teacher"] = hashed.hexdigest(), teacher
    # <file>[:<of it>[:<to>[:<without>]]], which may be gone when a training goes on
    first = [Path(spec.partition(":")[0]) for spec in args.init_param or ()]
    if first and all(path.is_file() for path in first):
        hashed = hashlib.sha256()
        for path in first:
            _hash_stretches(path, hashed)
        digests["first weights"] = hashed.hexdigest()
        places["first weights"] = " ".join(map(str, first))
    if weights := vars(args).get("utt2weight"):
        digests["utt2weight"] = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        places["utt2weight"] = weights
    return {"digests": digests, "places": places}


def _stats_digest(path: Path) -> str:
    """Of the numbers: the file has a time in it."""
    hashed = hashlib.sha256()
    with np.load(path) as arrays:
        for name in ("count", "sum", "sum_square"):
            hashed.update(name.encode() + np.asarray(arrays[name], "<f8").tobytes())
    return hashed.hexdigest()


def _noise_digest(folder: str) -> str:
    """Of the names and sizes of its recordings: which is drawn follows from them."""
    rows = [f"{p.relative_to(folder)} {p.stat().st_size}" for p in recordings(folder)]
    return hashlib.sha256(
        "\n".join(sorted(rows)).encode("utf-8", "surrogateescape")
    ).hexdigest()


def _hash_stretches(path: Path, hashed: "hashlib._Hash") -> None:
    size = path.stat().st_size
    hashed.update(f"{path.name} {size}\n".encode())
    with open(path, "rb") as file:
        for place in np.linspace(0, max(size - _PLACE_BYTES, 0), _PLACES, dtype=int):
            hashed.update(os.pread(file.fileno(), _PLACE_BYTES, int(place)))
