"""An experiment is what it was trained on: compared before anything is written.

`config.yaml` of the experiment has the settings and the token list, `normaliser.json`
how its phones and text are written, and `trained_on.json` what identifies the rest:
the SentencePiece model, the statistics, and the lines of the training and validation
sets. Experiments made before there was a `trained_on.json` are compared by the others.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from powsm.errors import PowsmError
from powsm.files.datadir import NORMALISER_FILE
from powsm.files.whole import DamagedError, read_json, write_json
from powsm.settings import load_yaml
from powsm.train.experiment.differences import (
    RESTORE,
    epoch_differences,
    normaliser_differences,
    settings_differences,
    token_differences,
)
from powsm.train.experiment.digests import identify

log = logging.getLogger(__name__)

RECORD_FILE = "trained_on.json"
_VERSION = 1
_SHOWN = 4  # differences that a message names
LONGEST_NAME = 200  # bytes: files of stage 14 are named after it, and more


class ExperimentError(PowsmError):
    """An experiment was trained with something else than it is to go on with."""


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
        differences += settings_differences(earlier, args, may_change)
        differences += token_differences(earlier.get("token_list"), args.token_list)
        differences += epoch_differences(exp, args)
    else:
        missing.append("settings and tokens (no config.yaml)")
    if (exp / NORMALISER_FILE).exists():
        now = train_folder / NORMALISER_FILE
        differences += normaliser_differences(exp / NORMALISER_FILE, now)
    else:
        missing.append(f"how phones and text are written (no {NORMALISER_FILE})")
    if (exp / RECORD_FILE).exists():
        earlier = read_json(exp / RECORD_FILE, RESTORE)
        before = earlier.get("digests")
        if not isinstance(before, dict):
            raise DamagedError(f"{exp / RECORD_FILE}: no digests in it; {RESTORE}")
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
    """Write what an experiment is trained on, unless it has weights already.

    What those were trained on without a record is not known, and must not be claimed;
    a record without weights is of a training that failed before its first update.
    """
    if has_weights(exp):
        return
    record = identify(args, train_folder=train_folder, valid_folder=valid_folder)
    write_json(exp / RECORD_FILE, {"version": _VERSION} | record)
