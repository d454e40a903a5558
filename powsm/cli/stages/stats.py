#!/usr/bin/env python3
"""Stage 10: feature mean and variance from a seeded sample of the training set."""

import argparse
import logging
from pathlib import Path

from powsm.train import config, stats


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--dump", type=Path, required=True, help="dump/raw/train")
    parser.add_argument("--config", type=Path, required=True, help="training YAML")
    parser.add_argument("--out", type=Path, required=True, help="folder to write in")
    parser.add_argument("--stats_hours", type=float, default=100, help="sample size")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        settings = config.load(options.config)
        args = config.parse(settings, options.out / "config.yaml")
        stats.collect(
            args,
            options.dump,
            options.out / "train" / "feats_stats.npz",
            hours=options.stats_hours,
            seed=options.seed,
        )
    except (ValueError, OSError) as err:
        raise SystemExit(f"collect_stats.py: error: {err}") from err


if __name__ == "__main__":
    main()
