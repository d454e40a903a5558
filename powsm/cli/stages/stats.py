"""Stage 10: feature mean and variance from a seeded sample of the training set."""

import argparse
from pathlib import Path

from powsm.cli.options import add_shared, number, whole


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_shared(parser, "--dump", help="dump/raw/train")
    add_shared(parser, "--config", "--set")
    add("--out", type=Path, required=True, help="folder to write in")
    hours = "sample size"
    add("--stats_hours", type=number(above=True), default=100.0, help=hours)
    add(
        "--stats_window",
        choices=("own", "published"),
        help="clips at their own length, or padded; default: as the config says",
    )
    add("--seed", type=whole(), default=0, help="of the sample")


def run(options: argparse.Namespace) -> None:
    from powsm.prepare.index import build_index
    from powsm.train import config, stats

    settings = config.load(options.config, options.overrides)
    if options.stats_window:
        settings["stats_window"] = options.stats_window
    build_index(options.dump)  # before anything is written
    args = config.parse(settings, options.out / "config.yaml")
    stats.collect(
        args,
        options.dump,
        stats.stats_file(options.out, args.stats_window),
        hours=options.stats_hours,
        seed=options.seed,
    )
