#!/usr/bin/env python3
"""Stage 11: train, or go on training, a model on the examples of stage 4.

Under torchrun every process runs this script; rank and world size come from the
environment.
"""

import argparse
import logging
import os
from pathlib import Path

from powsm.cluster.ranks import RankError, leaving_at_errors
from powsm.files.whole import naming
from powsm.model.find import keep_normaliser
from powsm.train import config
from powsm.train.memory import TrainingError
from powsm.train.run import train
from powsm.train.watch import StoppedBySignal


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="training YAML")
    parser.add_argument("--dump", type=Path, required=True, help="dump/raw")
    parser.add_argument("--train_set", default="train", help="folder in --dump")
    parser.add_argument("--valid_set", default="dev", help="folder in --dump")
    parser.add_argument("--token_dir", type=Path, required=True, help="of stage 5")
    parser.add_argument("--stats", type=Path, help="feats_stats.npz of stage 10")
    parser.add_argument("--exp", type=Path, required=True, help="experiment folder")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY.SUB=VALUE",
        dest="overrides",
        help="change settings of the YAML",
    )
    options = parser.parse_args()
    options.exp.mkdir(parents=True, exist_ok=True)
    rank = int(os.environ.get("RANK", "0"))
    logging.basicConfig(
        level=logging.WARNING if rank == 0 else logging.ERROR,
        format=f"%(asctime)s {f'rank {rank}: ' if rank else ''}%(message)s",
        handlers=[
            logging.StreamHandler(),
            logging.FileHandler(
                options.exp / ("train.log" if rank == 0 else os.devnull)
            ),
        ],
    )
    # ours alone: ESPnet tells every tensor
    logging.getLogger("powsm").setLevel(logging.WARNING if rank else logging.INFO)
    try:
        settings = config.load(options.config, options.overrides)
        settings["token_list"] = str(options.token_dir / "tokens.txt")
        settings["token_type"] = "bpe"
        settings["bpemodel"] = str(options.token_dir / "bpe.model")
        if settings.get("normalize") == "global_mvn":
            settings["normalize_conf"] = {"stats_file": str(options.stats)}
        name = "settings.yaml" if rank == 0 else f".settings.{rank}.yaml"
        args = config.parse(settings, options.exp / name)
        if rank == 0:
            keep_normaliser(options.dump / options.train_set, options.exp)
        with naming(options.exp):
            train(
                args,
                train_folder=options.dump / options.train_set,
                valid_folder=options.dump / options.valid_set,
                exp=options.exp,
            )
    except StoppedBySignal as stop:
        logging.getLogger("powsm").info("%s", stop)
        raise SystemExit(os.EX_TEMPFAIL) from stop
    except (ValueError, OSError, TrainingError, RankError) as err:
        raise SystemExit(f"train.py: error: {err}") from err


if __name__ == "__main__":
    with leaving_at_errors():
        main()
