#!/usr/bin/env python3
"""Stage 11 with ESPnet's own training loop, `espnet2.bin.s2t_train`, on the same files.

The published way to train: one row an example, the audio encoded for each of them.
What only our loop knows is left out of the settings, and said.
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path

import yaml
from espnet2.bin.s2t_train import get_parser
from espnet2.bin.s2t_train import main as s2t_train

from powsm.files.whole import atomic_write
from powsm.model.find import keep_normaliser
from powsm.train import config
from powsm.train.stock_audio import ESPNET_TYPE, register_with_espnet

# here and not in main: ESPnet spawns a process for each GPU, which imports this file
register_with_espnet()

STOCK_CRITERIA = {"loss", "loss_ctc", "loss_att", "acc", "cer_ctc", "cer", "wer"}


def keeps_no_attention(settings: Mapping) -> bool:
    """Whether attention is flash-attn's or PyTorch's: ESPnet's plots fail on both."""
    parts = [settings["encoder_conf"], settings["decoder_conf"]]
    return any(part.get(f"use_{x}") for part in parts for x in ("flash_attn", "sdpa"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="training YAML")
    parser.add_argument("--dump", type=Path, required=True, help="dump/raw")
    parser.add_argument("--token_dir", type=Path, required=True, help="of stage 5")
    parser.add_argument("--stats", type=Path, help="feats_stats.npz of stage 10")
    parser.add_argument("--exp", type=Path, required=True, help="experiment folder")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY.SUB=VALUE", dest="overrides"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.exp.mkdir(parents=True, exist_ok=True)
    settings_file = options.exp / "settings.yaml"
    try:
        settings = config.load(options.config, options.overrides)
        settings = config.stock_config(config.parse(settings, settings_file))
    except (ValueError, OSError) as err:
        raise SystemExit(f"train_espnet.py: error: {err}") from err
    logging.info("not used by ESPnet's loop: %s", settings["powsm"])
    stock_keys = {action.dest for action in get_parser()._actions}
    settings = {key: settings[key] for key in settings if key in stock_keys}

    criteria = settings["best_model_criterion"]
    known = [c for c in criteria if c[1] in STOCK_CRITERIA]
    if known != criteria:
        known = known or [["valid", "acc", "max"]]
        logging.info("best_model_criterion %s becomes %s", criteria, known)
    settings["best_model_criterion"] = known
    if settings["num_att_plot"] and keeps_no_attention(settings):
        logging.info("num_att_plot becomes 0: this attention keeps no weights to plot")
        settings["num_att_plot"] = 0
    if settings["normalize"] == "global_mvn":
        settings["normalize_conf"] = {"stats_file": str(options.stats)}
    for name, folder in (("train", "train"), ("valid", "dev")):
        files = options.dump / folder
        settings[f"{name}_data_path_and_name_and_type"] = [
            [str(files / "wav.scp"), "speech", ESPNET_TYPE],
            [str(files / "text.prev"), "text_prev", "text"],
            [str(files / "text.ctc"), "text_ctc", "text"],
            [str(files / "text"), "text", "text"],
        ]
        settings[f"{name}_shape_file"] = [str(files / "utt2num_samples")]
    settings |= {
        "token_list": str(options.token_dir / "tokens.txt"),
        "token_type": "bpe",
        "bpemodel": str(options.token_dir / "bpe.model"),
        "fold_length": [80000],
        "output_dir": str(options.exp),
        "resume": True,
        "multiprocessing_distributed": settings["ngpu"] > 1,
    }
    with atomic_write(settings_file) as file:
        yaml.safe_dump(settings, file, allow_unicode=True, sort_keys=False)
    keep_normaliser(options.dump / "train", options.exp)
    s2t_train(["--config", str(settings_file)])


if __name__ == "__main__":
    main()
