"""An experiment is what it was trained on: compared before anything is written.

`config.yaml` of the experiment has the settings and the token list, `normaliser.json`
how its phones and text are written, and `trained_on.json` what identifies the rest:
the SentencePiece model, the statistics, and the lines of the training and validation
sets. Experiments made before there was a `trained_on.json` are compared by the others.

An experiment may go on from the end of another, with other weights of its losses: it
begins with the last checkpoint of that one, optimiser, schedule and place in the data
included, as in the paper's CTC weight of "0.3, then 0.5".
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from powsm.errors import PowsmError
from powsm.files.whole import (
    DamagedError,
    atomic_write,
    read_json,
    read_json_lines,
)
from powsm.model.find import GOES_ON_FILE, NORMALISER_FILE
from powsm.settings import is_number, load_yaml
from powsm.train.checkpoints import newest_checkpoint
from powsm.train.config import OUR_KEYS, get_parser, stock_config

log = logging.getLogger(__name__)

RECORD_FILE = "trained_on.json"
_VERSION = 1
_SET_FILES = ("text", "text.prev", "text.ctc", "utt2num_samples")
_PLACES, _PLACE_BYTES = 64, 1 << 14  # of a file that are read, and bytes of each
_SHOWN = 4  # differences that a message names
_RESTORE = "restore it, or remove it, and what it says is no longer compared"

LONGEST_NAME = 200  # bytes: files of stage 14 are named after it, and more
# may differ: they change neither the model nor the order and weight of its data
_FREE = {
    *("config", "output_dir", "ngpu", "num_workers", "log_interval", "print_config"),
    *("checkpoint_every_n_updates", "checkpoint_every_minutes"),
    *("exchange_in_bfloat16", "compile", "optim_conf.fused"),
    *("keep_nbest_models", "best_model_criterion"),
    *("use_wandb", "wandb_project", "wandb_id", "wandb_entity", "wandb_name"),
    # of ESPnet's loop: how it is run, and where its data are
    *("multiprocessing_distributed", "resume", "log_level", "num_att_plot"),
    *(f"{mode}_{what}" for mode in ("train", "valid") for what in
      ("data_path_and_name_and_type", "shape_file")),
    *("token_list", "bpemodel", "token_type"),  # contents are compared, not places
    *("normalize_conf.stats_file", "max_epoch"),
    *(f"{part}_conf.{key}"
      for part in ("encoder", "decoder", "promptencoder") for key in
      ("use_flash_attn", "use_sdpa", "gradient_checkpoint_layers")),
    *(f"batch_conf.{key}" for key in
      ("batch_seconds", "update_batches", "update_seconds")),  # their product is not
}  # fmt: skip

# settings that a training which goes on may have otherwise than the one before; how far
# it goes and what is logged may change in every experiment
MAY_CHANGE = (
    "model_conf.ctc_weight",
    "model_conf.ctc_weight_range",
    "model_conf.task_weights",
)


class ExperimentError(PowsmError):
    """An experiment was trained with something else than it is to go on with."""


class GoOnError(PowsmError):
    """A training that cannot go on from another; the message says why."""


def check_name(exp: Path) -> None:
    """Refuse a name of an experiment that no file system takes.

    Raises:
        ExperimentError: says how long it is.
    """
    n_bytes = len(os.fsencode(exp.name))
    if n_bytes > LONGEST_NAME:
        raise ExperimentError(
            f"the name of the experiment has {n_bytes} bytes, expected {LONGEST_NAME} "
            f"at most: {exp.name[:40]}...; give it one with --exp_name"
        )


def has_weights(exp: Path) -> bool:
    """Whether something was trained in a folder, so that it is not to be changed."""
    return any(True for pattern in ("*.pth", "checkpoints/step*.ckpt")
               for _ in exp.glob(pattern))  # fmt: skip


def check_experiment(
    args: argparse.Namespace,
    *,
    train_folder: Path,
    valid_folder: Path,
    exp: Path,
    may_change: Sequence[str] = (),
) -> None:
    """Refuse to go on in an experiment that was trained with something else.

    Reads only. A folder without weights is never refused.

    Args:
        args: all settings, from `powsm.train.config.parse`.
        train_folder, valid_folder: dump folders of stage 4.
        exp: the experiment folder.
        may_change: settings that may differ beside those that always may.

    Raises:
        ExperimentError: names what differs, on one line, and what may.
    """
    if not has_weights(exp):
        return
    before = exp / "config.yaml"
    missing = []
    differences: list[str] = []
    if before.exists():
        earlier = load_yaml(before)
        differences += _settings_differences(earlier, args, may_change)
        differences += _token_differences(earlier.get("token_list"), args.token_list)
        differences += _epoch_differences(exp, args)
    else:
        missing.append("settings and tokens (no config.yaml)")
    if (exp / NORMALISER_FILE).exists():
        now = train_folder / NORMALISER_FILE
        differences += _normaliser_differences(exp / NORMALISER_FILE, now)
    else:
        missing.append(f"how phones and text are written (no {NORMALISER_FILE})")
    if (exp / RECORD_FILE).exists():
        earlier = read_json(exp / RECORD_FILE, _RESTORE)
        before = earlier.get("digests")
        if not isinstance(before, dict):
            raise DamagedError(f"{exp / RECORD_FILE}: no digests in it; {_RESTORE}")
        now = identify(args, train_folder=train_folder, valid_folder=valid_folder)
        differences += [
            f"{about} ({now['places'][about]})"
            for about, digest in now["digests"].items()
            if before.get(about, digest) != digest
        ]
    else:
        missing.append(f"statistics and corpus (no {RECORD_FILE})")
    if differences:
        more = len(differences) - _SHOWN
        shown = "; ".join(differences[:_SHOWN]) + (f"; {more} more" if more > 0 else "")
        raise ExperimentError(
            f"{exp} was trained with something else: {shown}. Take another --exp_name, "
            "or go back to that: only max_epoch upwards, ranks, workers, batch memory, "
            f"and what is logged or kept{''.join(f', {key}' for key in may_change)} "
            "may change"
        )
    if missing:
        log.info(
            "%s was made by an earlier version: not compared: %s",
            exp,
            ", ".join(missing),
        )


def keep_record(
    args: argparse.Namespace, *, train_folder: Path, valid_folder: Path, exp: Path
) -> None:
    """Write what an experiment is trained on, unless it has weights without a record.

    What those were trained on is not known, and must not be claimed.
    """
    if (exp / RECORD_FILE).exists() or has_weights(exp):
        return
    record = identify(args, train_folder=train_folder, valid_folder=valid_folder)
    with atomic_write(exp / RECORD_FILE) as file:
        json.dump({"version": _VERSION} | record, file, indent=1)
        file.write("\n")


def origin(exp: Path) -> dict | None:
    """What an experiment went on from: exp, epoch, updates; None if it began anew."""
    path = exp / GOES_ON_FILE
    return read_json(path, _RESTORE) if path.exists() else None


def go_on_from(
    args: argparse.Namespace,
    *,
    before: Path,
    exp: Path,
    train_folder: Path,
    valid_folder: Path,
) -> None:
    """Make a new experiment of the last checkpoint of a finished one.

    Where the new experiment has weights that came from there, nothing is done: it goes
    on by itself. The weights of earlier epochs stay where they are, so that the average
    is over epochs of one training; the history is taken over.

    Args:
        args: all settings of the new experiment, from `powsm.train.config.parse`.
        before: the experiment that it goes on from.
        exp: the new one.
        train_folder, valid_folder: dump folders of stage 4, the same for both.

    Raises:
        GoOnError: the experiment before is not finished, or the new one is not its
            continuation, or max_epoch is not higher.
        ExperimentError: they differ in more than `MAY_CHANGE`.
    """
    if exp.resolve() == before.resolve():
        raise GoOnError(f"{exp} cannot go on from itself; take another --exp_name")
    if has_weights(exp):
        _check_origin(exp, before)
        return
    checkpoint, last = _end_of(before)
    if args.max_epoch <= last["epoch"]:
        raise GoOnError(
            f"max_epoch is {args.max_epoch}, but {before} has {last['epoch']} epochs "
            "already; raise it"
        )
    folders = {"train_folder": train_folder, "valid_folder": valid_folder}
    check_experiment(args, exp=before, may_change=MAY_CHANGE, **folders)
    exp.mkdir(parents=True, exist_ok=True)
    for name in ("history.jsonl", RECORD_FILE):
        if (before / name).exists():
            _copy(before / name, exp / name)
    with atomic_write(exp / GOES_ON_FILE) as file:
        record = {"exp": before.name, "epoch": last["epoch"]}
        json.dump(record | {"updates": last["updates"]}, file)
        file.write("\n")
    args.output_dir = str(exp)
    with atomic_write(exp / "config.yaml") as file:
        yaml.safe_dump(stock_config(args), file, allow_unicode=True, sort_keys=False)
    # last: a folder without it is begun again
    _copy(checkpoint, exp / "checkpoints" / checkpoint.name)
    log.info("goes on from epoch %d of %s", last["epoch"], before)


def _check_origin(exp: Path, before: Path) -> None:
    came_from = (origin(exp) or {}).get("exp")
    if came_from != before.name:
        how = f"went on from {came_from}" if came_from else "began anew"
        raise GoOnError(
            f"{exp} has weights and {how}, not from {before}; take another --exp_name, "
            "or remove the folder"
        )


def _end_of(exp: Path) -> tuple[Path, dict]:
    """The checkpoint of an experiment's last epoch, and that epoch's record."""
    history = exp / "history.jsonl"
    checkpoint = newest_checkpoint(exp)
    epochs = _read_history(history) if history.exists() else []
    if checkpoint is None or not epochs:
        raise GoOnError(
            f"{exp}: no checkpoints/step*.ckpt with a history.jsonl to go on from; "
            "only a training by our own loop (--trainer powsm) has them"
        )
    last = epochs[-1]
    wanted = load_yaml(exp / "config.yaml").get("max_epoch")
    updates = int(checkpoint.stem.removeprefix("step"))
    if last["epoch"] != wanted or updates != last["updates"]:
        raise GoOnError(
            f"{exp} is at epoch {last['epoch']} of {wanted}, update {updates}; it is "
            "gone on from when it is finished"
        )
    return checkpoint, last


def _copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with open(source, "rb") as read, atomic_write(target, "wb") as written:
        shutil.copyfileobj(read, written)


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
    return {"digests": digests, "places": places}


def _stats_digest(path: Path) -> str:
    """Of the numbers: the file has a time in it."""
    hashed = hashlib.sha256()
    with np.load(path) as arrays:
        for name in ("count", "sum", "sum_square"):
            hashed.update(name.encode() + np.asarray(arrays[name], "<f8").tobytes())
    return hashed.hexdigest()


def _hash_stretches(path: Path, hashed: "hashlib._Hash") -> None:
    size = path.stat().st_size
    hashed.update(f"{path.name} {size}\n".encode())
    with open(path, "rb") as file:
        for place in np.linspace(0, max(size - _PLACE_BYTES, 0), _PLACES, dtype=int):
            hashed.update(os.pread(file.fileno(), _PLACE_BYTES, int(place)))


def _read_history(path: Path) -> list[dict]:
    """The epochs of an experiment.

    Raises:
        DamagedError: names the line.
    """
    remedy = "restore the file, or remove that line"
    rows = read_json_lines(path, remedy, keys=("epoch", "updates"))
    for number, row in enumerate(rows, 1):
        if not is_number(row["epoch"]):
            raise DamagedError(f"{path}:{number}: epoch is no number; {remedy}")
    return rows


def _flat(settings: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, Mapping) and prefix == ""):
            yield prefix + key, _plain(value)


def _plain(value: object) -> object:
    """Tuples as lists and whole floats as they are compared in YAML."""
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return value


def _as_given(config: Mapping) -> dict:
    """Settings of a `config.yaml` under the names of the training YAML."""
    ours = dict(config.get("powsm") or {})
    settings = {k: v for k, v in config.items() if k != "powsm"}
    model_conf = (settings.get("model_conf") or {}) | (ours.pop("model_conf", {}) or {})
    return settings | ours | {"model_conf": model_conf}


def _settings_differences(
    earlier: Mapping, args: argparse.Namespace, may_change: Sequence[str]
) -> list[str]:
    given = _as_given(earlier)
    before = dict(_flat(given))
    now = dict(_flat(_as_given(stock_config(args))))
    parser = get_parser(args.model)
    known = {action.dest for action in parser._actions} | set(OUR_KEYS)
    differences = []
    if ("powsm" in earlier) != ("iterator" in vars(args)):
        loops = ("ESPnet's own loop", "ours (--trainer powsm)")
        old, new = loops if "iterator" in vars(args) else reversed(loops)
        differences.append(f"trained by {old}, now {new}")
    for key in sorted(before.keys() | now.keys()):
        top = key.partition(".")[0]
        if key in _FREE or top in _FREE or top not in known:
            continue
        if key.startswith("dist_"):  # of ESPnet's loop: its ranks
            continue
        if any(key == free or key.startswith(f"{free}.") for free in may_change):
            continue
        default = _plain(
            parser.get_default(key)
        )  # of a key that is newer than the file
        old, new = before.get(key, default), now.get(key, default)
        if old != new:
            differences.append(f"{key} {_shown(old)}, now {_shown(new)}")
    old, new = (_update_seconds(dict(x.get("batch_conf") or {})) for x in
                (given, vars(args)))  # fmt: skip
    if old != new:
        differences.append(f"batch_conf: {old:g} s of audio an update, now {new:g}")
    return differences


def _shown(value: object) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _update_seconds(batch_conf: Mapping) -> float:
    """Most seconds of audio in an update, however it is cut into batches."""
    if batch_conf.get("update_seconds") is not None:
        return float(batch_conf["update_seconds"])
    seconds = float(batch_conf.get("batch_seconds", 100.0))
    return seconds * int(batch_conf.get("update_batches", 1))


def _token_differences(earlier: object, token_list: object) -> list[str]:
    """Other tokens or another order; a token's number is a row of the model."""
    if not isinstance(earlier, list):
        return []
    if isinstance(token_list, str):
        lines = Path(token_list).read_text(encoding="utf-8").split("\n")
        now, place = [line for line in lines if line], token_list
    else:
        now, place = list(token_list), "token_list"
    if now == earlier:
        return []
    for number, (old, new) in enumerate(zip(earlier, now, strict=False)):
        if old != new:
            return [f"token {number} {old!r}, now {new!r} ({place})"]
    return [f"{len(earlier)} tokens, now {len(now)} ({place})"]


def _normaliser_differences(earlier: Path, now: Path) -> list[str]:
    before = read_json(earlier, _RESTORE)
    if not now.exists():
        return [f"{earlier.name}, now missing ({now.parent})"]
    after = read_json(now, "run stage 4 again")
    return [
        f"{key} {_shown(before.get(key))}, now {_shown(after.get(key))} ({now})"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _epoch_differences(exp: Path, args: argparse.Namespace) -> list[str]:
    """Fewer epochs than are done."""
    kept = (p.name.removesuffix("epoch.pth") for p in exp.glob("*epoch.pth"))
    done = max((int(number) for number in kept if number.isdecimal()), default=0)
    history = exp / "history.jsonl"
    if history.exists():
        done = max([done, *(int(row["epoch"]) for row in _read_history(history))])
    if args.max_epoch is not None and args.max_epoch < done:
        return [f"max_epoch {args.max_epoch}, but {done} epochs are done"]
    return []
