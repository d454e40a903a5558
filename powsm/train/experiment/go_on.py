"""A new experiment that begins with the last checkpoint of a finished one.

Its losses may have other weights; optimiser, schedule and place in the data are those
of the checkpoint, as in the paper's CTC weight of "0.3, then 0.5".
"""

import argparse
import logging
import shutil
from pathlib import Path

import yaml

from powsm.errors import PowsmError
from powsm.files.whole import atomic_write, read_json, write_json
from powsm.model.find import GOES_ON_FILE
from powsm.score.results import HISTORY_FILE, read_history
from powsm.settings import load_yaml
from powsm.train.checkpoints import newest_checkpoint
from powsm.train.config import stock_config
from powsm.train.experiment.differences import RESTORE
from powsm.train.experiment.record import RECORD_FILE, check_experiment, has_weights

log = logging.getLogger(__name__)

# settings that a training which goes on may have otherwise than the one before; how far
# it goes and what is logged may change in every experiment
MAY_CHANGE = ("model_conf.ctc_weight", "model_conf.ctc_weight_range")


class GoOnError(PowsmError):
    """A training that cannot go on from another; the message says why."""


def origin(exp: Path) -> dict | None:
    """What an experiment went on from: exp, epoch, updates; None if it began anew."""
    path = exp / GOES_ON_FILE
    return read_json(path, RESTORE) if path.exists() else None


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
    for name in (HISTORY_FILE, RECORD_FILE):
        if (before / name).exists():
            _copy(before / name, exp / name)
    record = {"exp": before.name, "epoch": last["epoch"], "updates": last["updates"]}
    write_json(exp / GOES_ON_FILE, record, indent=None)
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
    checkpoint = newest_checkpoint(exp)
    epochs = read_history(exp)
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
