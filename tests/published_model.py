"""A model in the layout of the published checkpoints, from a tiny experiment."""

import re
from pathlib import Path

import numpy as np
import torch
import yaml
from tiny_model import make_args

from powsm.config import stock_config
from powsm.model import PowsmTask

NAME = "s2t_train_s2t_ebf_conv2d_raw_bpe40000"
CONFIG = f"exp/{NAME}/config.yaml"
WEIGHTS = f"exp/{NAME}/valid.acc.ave_5best.till45epoch.pth"
STATS = "exp/s2t_stats_raw_bpe40000/train/feats_stats.npz"
BPE_MODEL = "data/token_list/bpe_unigram40000/bpe.model"


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameter names as ESPnet had them when the model was published."""
    return {re.sub(r"embed\.out\.", "embed.out.0.", k): v for k, v in state.items()}


def make_published(
    root: Path,
    token_dir: Path,
    *,
    meta: bool = True,
    seed: int = 0,
    **changes,
) -> Path:
    """Write a folder as `espnet/powsm` has it; random weights under their old names.

    Args:
        root: the folder, or a sub-folder of it.
        token_dir: of stage 5.
        meta: write `meta.yaml`, ESPnet's index.
        changes: of the training configuration.
    """
    for name in (CONFIG, STATS, BPE_MODEL):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / BPE_MODEL).write_bytes((token_dir / "bpe.model").read_bytes())
    n_mels = 80
    frames = np.random.default_rng(seed).normal(-10, 3, (200, n_mels))
    np.savez(root / STATS, count=200, sum=frames.sum(0), sum_square=(frames**2).sum(0))
    settings = {"normalize": "global_mvn", "model": "espnet"}
    settings["normalize_conf"] = {"stats_file": str(root / STATS)}
    args = make_args(token_dir, root, **(settings | changes))
    torch.manual_seed(seed)
    model = PowsmTask.build_model(args)
    torch.save(old_names(model.state_dict()), root / WEIGHTS)
    (root / "settings.yaml").unlink()

    config = stock_config(args)
    del config["powsm"]
    config["normalize_conf"] = {"stats_file": STATS}
    config["bpemodel"] = BPE_MODEL
    for part in ("encoder_conf", "decoder_conf"):
        config[part] = dict(config[part]) | {"use_flash_attn": True}
        del config[part]["use_sdpa"]
    (root / CONFIG).write_text(yaml.safe_dump(config))
    if meta:
        index = {
            "yaml_files": {"s2t_train_config": CONFIG},
            "files": {"s2t_model_file": WEIGHTS},
            "espnet": "202503",
        }
        (root / "meta.yaml").write_text(yaml.safe_dump(index))
    return root
