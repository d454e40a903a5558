"""The smallest model that has every part, for tests that train for seconds."""

import argparse
from pathlib import Path

import torch
import yaml
from dump_builder import make_dump

from powsm.model.build import task_of_model
from powsm.train import config
from powsm.vocabulary.train import TokenizerSettings, train_tokenizer

SETTINGS = {
    "frontend_conf": {"fs": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160},
    "encoder": "e_branchformer",
    "encoder_conf": {
        "input_layer": "conv2d",
        "output_size": 16,
        "attention_heads": 2,
        "attention_layer_type": "selfattn",
        "pos_enc_layer_type": "abs_pos",
        "cgmlp_linear_units": 32,
        "cgmlp_conv_kernel": 7,
        "num_blocks": 2,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "use_ffn": True,
        "macaron_ffn": True,
        "linear_units": 32,
        "merge_conv_kernel": 7,
        "use_sdpa": True,
    },
    "decoder": "transformer",
    "decoder_conf": {
        "attention_heads": 2,
        "linear_units": 32,
        "num_blocks": 2,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "use_sdpa": True,
    },
    "model": "powsm",
    "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1},
    "normalize": "utterance_mvn",
    "preprocessor": "s2t",
    "preprocessor_conf": {
        "text_prev_apply_prob": 1.0,
        "time_apply_prob": 1.0,
        "speech_length": 20,
        "fs": 16000,
        "first_time_symbol": "<0.00>",
        "last_time_symbol": "<20.00>",
        "notime_symbol": "<notimestamps>",
    },
    "optim": "adamw",
    "optim_conf": {"lr": 0.003},
    "batch_conf": {"batch_seconds": 3, "update_batches": 2},
    "num_iters_per_epoch": 3,
    "max_epoch": 2,
    "checkpoint_every_n_updates": 2,
    "ctc_only_updates": 1,
    "best_model_criterion": [["valid", "loss", "min"]],
    "keep_nbest_models": 2,
    "num_workers": 0,
    "ngpu": 0,
    "seed": 1,
}

# The same without a decoder: prompts enter the encoder's third block, a head after the
# second learns phones, and the last what the task asks for.
_NOT_OF_CTC = ("decoder", "decoder_conf", "ctc_only_updates")
CTC_SETTINGS = {k: v for k, v in SETTINGS.items() if k not in _NOT_OF_CTC} | {
    "encoder": "e_branchformer_ctc",
    "encoder_conf": SETTINGS["encoder_conf"]
    | {
        "num_blocks": 3,
        "interctc_layer_idx": [2],
        "interctc_use_conditioning": True,
        "use_cross_attention": [False, False, True],
    },
    "promptencoder": "transformer",
    "promptencoder_conf": {
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 1,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "use_flash_attn": False,
        "use_sdpa": True,
    },
    "model": "powsm_ctc",
    "model_conf": {"interctc_weight": 0.5, "ctc_asr_only": [True, False]},
    "preprocessor": "s2t_ctc",
    "preprocessor_conf": {
        "text_prev_apply_prob": 1.0,
        "lang_apply_prob": 1.0,
        "nolang_symbol": "<unk>",
        "speech_length": 20,
    },
}


def make_tokens(train_folder: Path, out: Path) -> Path:
    """A token folder of the training set's phones and a few pieces of its words."""
    settings = TokenizerSettings(
        n_pieces=30,
        only_observed_phones=True,
        only_observed_languages=True,
        time_step_s=None,
    )
    train_tokenizer(train_folder, out, settings)
    return out


def make_corpus(root: Path) -> Path:
    """Eight utterances of training, five of dev, and the tokens of the eight.

    Those of dev are three batches of up to 3 s, which two ranks do not share evenly.
    """
    make_dump(root / "dump/train", [0.6, 0.8, 1.0, 0.7, 0.9, 1.1, 0.5, 1.2], seed=1)
    make_dump(root / "dump/dev", [0.6, 0.9, 0.7, 1.5, 1.6], seed=2)
    make_tokens(root / "dump/train", root / "tokens")
    return root


def make_args(
    token_dir: Path, out: Path, base: dict = SETTINGS, **changes
) -> argparse.Namespace:
    """Settings of a tiny experiment, through ESPnet's parser."""
    settings = base | {
        "token_list": str(token_dir / "tokens.txt"),
        "token_type": "bpe",
        "bpemodel": str(token_dir / "bpe.model"),
    }
    return config.parse(settings | changes, out / "settings.yaml")


def make_experiment(
    root: Path, token_dir: Path, seed: int = 0, base: dict = SETTINGS
) -> Path:
    """An experiment folder with random weights, as training leaves it behind."""
    exp = root / "exp"
    exp.mkdir(parents=True)
    args = make_args(token_dir, exp, base)
    torch.manual_seed(seed)
    model = task_of_model(args.model).build_model(args)
    torch.save(model.state_dict(), exp / "valid.loss.ave.pth")
    (exp / "config.yaml").write_text(yaml.safe_dump(config.stock_config(args)))
    return exp
