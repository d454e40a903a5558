"""Models in the layouts of the published checkpoints: tiny ones, and of full size.

`WEIGHTS` is the file of POWSM, `CTC_WEIGHTS` those under which POWSM-CTC is known: as
released, and as PRiSM's code has it.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import torch
import yaml
from sentencepiece import sentencepiece_model_pb2
from tiny_model import CTC_SETTINGS, SETTINGS, make_args

from powsm.model.build import task_of_model
from powsm.train import config
from powsm.vocabulary.train import write_tokenizer

CONF = Path(__file__).parents[1] / "conf"

NAME = "s2t_train_s2t_ebf_conv2d_raw_bpe40000"
CONFIG = f"exp/{NAME}/config.yaml"
WEIGHTS = f"exp/{NAME}/valid.acc.ave_5best.till45epoch.pth"
CTC_WEIGHTS = (
    "exp/s2t_train_conv2d_size768_e9_d9_mel80_raw_bpe40000/"
    "valid.total_count.ave_5best.till70epoch.pth",
    "exp/temp/valid.total_count.ave.till70epoch.pth",
)
STATS = "exp/s2t_stats_raw_bpe40000/train/feats_stats.npz"
BPE_MODEL = "data/token_list/bpe_unigram40000/bpe.model"


# whose attention was flash-attn's, by whether there is no decoder
PARTS = {
    False: ("encoder_conf", "decoder_conf"),
    True: ("encoder_conf", "promptencoder_conf"),
}


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameter names as ESPnet had them when the model was published."""
    return {re.sub(r"embed\.out\.", "embed.out.0.", k): v for k, v in state.items()}


def files_of(root: Path) -> dict[str, bytes]:
    """What a hub is given: paths below `root` and their bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def make_published(
    root: Path, token_dir: Path, *, seed: int = 0, weights: str = WEIGHTS, **changes
) -> Path:
    """Write a folder as `espnet/powsm` has it; random weights under their old names.

    Args:
        root: the folder, or a sub-folder of it.
        token_dir: of stage 5.
        weights: their file; one of `CTC_WEIGHTS` makes it `espnet/powsm_ctc`.
        changes: of the training configuration.
    """
    is_ctc_only = weights != WEIGHTS
    config_file = root / Path(weights).with_name("config.yaml")
    for name in (weights, STATS, BPE_MODEL):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / BPE_MODEL).write_bytes((token_dir / "bpe.model").read_bytes())
    n_mels = 80
    frames = np.random.default_rng(seed).normal(-10, 3, (200, n_mels))
    np.savez(root / STATS, count=200, sum=frames.sum(0), sum_square=(frames**2).sum(0))
    base = CTC_SETTINGS if is_ctc_only else SETTINGS
    settings = {"normalize": "global_mvn"}
    settings["model"] = "espnet_ctc" if is_ctc_only else "espnet"
    settings["normalize_conf"] = {"stats_file": str(root / STATS)}
    args = make_args(token_dir, root, base, **(settings | changes))
    torch.manual_seed(seed)
    model = task_of_model(args.model).build_model(args)
    torch.save(old_names(model.state_dict()), root / weights)
    (root / "settings.yaml").unlink()

    stored = config.stock_config(args)
    del stored["powsm"]
    stored["normalize_conf"] = {"stats_file": STATS}
    stored["bpemodel"] = BPE_MODEL
    for part in PARTS[is_ctc_only]:
        stored[part] = dict(stored[part]) | {"use_flash_attn": True}
        del stored[part]["use_sdpa"]
    config_file.write_text(yaml.safe_dump(stored))
    index = {
        "yaml_files": {"s2t_train_config": str(config_file.relative_to(root))},
        "files": {"s2t_model_file": weights},
        "espnet": "202503",
    }
    (root / "meta.yaml").write_text(yaml.safe_dump(index))
    return root


def extend_tokens(token_dir: Path, out: Path, n_tokens: int) -> Path:
    """A copy of a token folder with made-up pieces up to `n_tokens` tokens."""
    model = sentencepiece_model_pb2.ModelProto.FromString(
        (token_dir / "bpe.model").read_bytes()
    )
    for number in range(n_tokens - 2 - len(model.pieces)):
        model.pieces.add(piece=f"▁zz{number}", score=-20.0)
    assert write_tokenizer(out, model.SerializeToString(), []) == n_tokens
    return out


def make_full_size(root: Path, token_dir: Path, weights: str = WEIGHTS) -> Path:
    """The published shape, 343 or 426 M parameters, 40,002 tokens; random weights."""
    tokens = extend_tokens(token_dir, root / "tokens", 40_002)
    is_ctc_only = weights != WEIGHTS
    conf = config.load(CONF / f"train_powsm{'_ctc' * is_ctc_only}.yaml")
    more = ("model_conf",) if is_ctc_only else ()
    parts = {key: conf[key] for key in (*PARTS[is_ctc_only], *more)}
    # for the frontend and the small files
    make_published(root, tokens, weights=weights)
    tiny = torch.load(root / weights, weights_only=True)
    base = CTC_SETTINGS if is_ctc_only else SETTINGS
    args = make_args(tokens, root, base, **parts)
    with torch.device("meta"):
        model = task_of_model(args.model).build_model(args)
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02
    state = {}
    for name, value in old_names(model.state_dict()).items():
        if name.startswith("frontend."):
            state[name] = tiny[name]
        elif value.dim() == 1:
            state[name] = torch.full(value.shape, float("norm" in name))
        else:
            repeats = -(-value.numel() // len(noise))
            state[name] = noise.repeat(repeats)[: value.numel()].view(value.shape)
    state |= {name: tiny[name] for name in tiny if name.startswith("normalize.")}
    torch.save(state, root / weights)
    config_file = root / Path(weights).with_name("config.yaml")
    stored = yaml.safe_load(config_file.read_text())
    config_file.write_text(yaml.safe_dump(stored | parts))
    shutil.rmtree(root / "tokens")
    (root / "settings.yaml").unlink()
    return root
