"""Stage 11: train, or go on training, a model on the examples of stage 4.

The loop is ours, or ESPnet's own (--trainer espnet; where it is not given, a config
with `iterator: published` says so). Under torchrun every process runs this command;
rank and world size come from the environment.
"""

import argparse
import logging
import os
from contextlib import nullcontext
from pathlib import Path

from powsm.cli.options import add_shared
from powsm.cli.run import logging_to
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
    dry = "see whether the experiment may be trained with these settings, and stop"
    add("--dry_run", action="store_true", help=dry)


def run(options: argparse.Namespace) -> int | None:
    from powsm.train import config
    from powsm.train.stats import find_stats

    settings = config.load(options.config, options.overrides)
    if options.dry_run:
        return look(options, settings)
    check(options, settings)
    options.stats = find_stats(options.stats, settings)
    options.exp.mkdir(parents=True, exist_ok=True)
    return TRAINERS[options.trainer or trainer_of(settings)](options, settings)


def check(options: argparse.Namespace, settings: dict) -> None:
    """Refuse a name that is too long, and what the loop that is asked for cannot."""
    from powsm.train.experiment.record import check_name

    check_name(options.exp)
    if options.goes_on_from and (options.trainer or trainer_of(settings)) == "espnet":
        raise PowsmError(
            "--goes_on_from is of our own loop; leave --trainer espnet out"
        )


def look(options: argparse.Namespace, settings: dict) -> None:
    """Raise what would stop a training before its first update; nothing is written.

    Where tokens or statistics are not made yet, settings and name are looked at.
    """
    from powsm.train import config, run, stock
    from powsm.train.stats import find_stats

    check(options, settings)
    tokens = options.token_dir / "tokens.txt"
    if not tokens.exists():
        return
    config.check_tokens(tokens)
    has_stats = options.stats is not None and options.stats.exists()
    if settings.get("normalize") == "global_mvn" and not has_stats:
        return
    options.stats = find_stats(options.stats, settings)
    if (options.trainer or trainer_of(settings)) == "espnet":
        stock.look(settings, **_data(options))
    else:
        run.look(settings, **_data(options), goes_on_from=options.goes_on_from)


def trainer_of(settings: dict) -> str:
    """Whose loop a configuration was written for."""
    return "espnet" if settings.get("iterator") == "published" else "powsm"


def _data(options: argparse.Namespace) -> dict[str, Path | None]:
    return {
        "train_folder": options.dump / options.train_set,
        "valid_folder": options.dump / options.valid_set,
        **{key: getattr(options, key) for key in ("token_dir", "stats", "exp")},
    }


def train_by_ours(options: argparse.Namespace, settings: dict) -> int | None:
    from powsm.files.whole import naming
    from powsm.train.checkpoints import StoppedBySignal
    from powsm.train.run import train_experiment

    is_first = os.environ.get("RANK", "0") == "0"
    logged = logging_to(options.exp / "train.log") if is_first else nullcontext()
    with logged, naming(options.exp):
        try:
            train_experiment(
                settings, **_data(options), goes_on_from=options.goes_on_from
            )
        except StoppedBySignal as stop:
            log.info("%s", stop)
            return os.EX_TEMPFAIL
    return None


def train_by_espnet(options: argparse.Namespace, settings: dict) -> None:
    from powsm.train.stock import train

    root = logging.getLogger()
    level = root.level
    if os.environ.get("RANK", "0") == "0":
        root.setLevel(logging.INFO)  # its loop logs its progress
    try:
        train(settings, **_data(options))
    finally:
        root.setLevel(level)


TRAINERS = {"powsm": train_by_ours, "espnet": train_by_espnet}
