"""Stage 11: train, or go on training, a model on the examples of stage 4.

The loop is ours, or ESPnet's own (--trainer espnet; where it is not given, a config
with `iterator: published` says so). Under torchrun every process runs this command;
rank and world size come from the environment.
"""

import argparse
import logging
import os
from pathlib import Path

from powsm.cli.options import add_shared
from powsm.cli.run import log_to
from powsm.errors import PowsmError

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "--config", "--dump")
    add = parser.add_argument
    add("--train_set", default="train", help="folder in --dump")
    add("--valid_set", default="dev", help="folder in --dump")
    add_shared(parser, "--token_dir", "--stats", "--exp", "--set")
    add("--goes_on_from", type=Path, help="finished experiment that this one continues")
    add("--trainer", choices=TRAINERS, help="whose loop; default: as the config says")


def run(options: argparse.Namespace) -> int | None:
    options.exp.mkdir(parents=True, exist_ok=True)
    from powsm.train import config
    from powsm.train.stats import find_stats

    settings = config.load(options.config, options.overrides)
    options.stats = find_stats(options.stats, settings)
    return TRAINERS[options.trainer or trainer_of(settings)](options, settings)


def trainer_of(settings: dict) -> str:
    """Whose loop a configuration was written for."""
    return "espnet" if settings.get("iterator") == "published" else "powsm"


def train_by_ours(options: argparse.Namespace, settings: dict) -> int | None:
    from powsm.files.whole import naming
    from powsm.train.checkpoints import StoppedBySignal
    from powsm.train.run import train_experiment

    if os.environ.get("RANK", "0") == "0":
        log_to(options.exp / "train.log")
    try:
        with naming(options.exp):
            train_experiment(
                settings,
                train_folder=options.dump / options.train_set,
                valid_folder=options.dump / options.valid_set,
                token_dir=options.token_dir,
                stats=options.stats,
                exp=options.exp,
                goes_on_from=options.goes_on_from,
            )
    except StoppedBySignal as stop:
        log.info("%s", stop)
        return os.EX_TEMPFAIL
    return None


def train_by_espnet(options: argparse.Namespace, settings: dict) -> None:
    from powsm.train.stock import train

    if options.goes_on_from:
        raise PowsmError(
            "--goes_on_from is of our own loop; leave --trainer espnet out"
        )
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger().setLevel(logging.INFO)  # its loop logs its progress
    train(
        settings,
        train_folder=options.dump / options.train_set,
        valid_folder=options.dump / options.valid_set,
        token_dir=options.token_dir,
        stats=options.stats,
        exp=options.exp,
    )


TRAINERS = {"powsm": train_by_ours, "espnet": train_by_espnet}
