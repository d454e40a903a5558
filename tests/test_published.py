"""conf/train_powsm.yaml, with ESPnet's defaults, against the published values."""

from pathlib import Path

import torch
from espnet2.utils.get_default_kwargs import get_default_kwargs

from powsm import config
from powsm.model import PowsmTask

CONF = Path(__file__).parents[1] / "conf"

# The public recipe's training configuration (ESPnet, egs2/powsm) and paper section 3
PUBLISHED = {
    "frontend_conf.n_fft": 512,
    "frontend_conf.win_length": 400,
    "frontend_conf.hop_length": 160,
    "frontend_conf.n_mels": 80,
    "normalize": "global_mvn",
    "specaug_conf.apply_time_warp": False,
    "specaug_conf.num_freq_mask": 2,
    "specaug_conf.freq_mask_width_range": [0, 27],
    "specaug_conf.num_time_mask": 4,
    "specaug_conf.time_mask_width_ratio_range": [0.0, 0.05],
    "encoder": "e_branchformer",
    "encoder_conf.input_layer": "conv2d",
    "encoder_conf.num_blocks": 9,
    "encoder_conf.output_size": 768,
    "encoder_conf.attention_heads": 12,
    "encoder_conf.attention_layer_type": "selfattn",
    "encoder_conf.pos_enc_layer_type": "abs_pos",
    "encoder_conf.cgmlp_linear_units": 3072,
    "encoder_conf.cgmlp_conv_kernel": 31,
    "encoder_conf.gate_activation": "identity",
    "encoder_conf.use_linear_after_conv": False,
    "encoder_conf.merge_conv_kernel": 31,
    "encoder_conf.linear_units": 3072,
    "encoder_conf.use_ffn": True,
    "encoder_conf.macaron_ffn": True,
    "encoder_conf.dropout_rate": 0.1,
    "encoder_conf.positional_dropout_rate": 0.1,
    "encoder_conf.attention_dropout_rate": 0.1,
    "encoder_conf.layer_drop_rate": 0.0,
    "encoder_conf.use_flash_attn": True,
    "decoder": "transformer",
    "decoder_conf.num_blocks": 9,
    "decoder_conf.attention_heads": 12,
    "decoder_conf.linear_units": 3072,
    "decoder_conf.dropout_rate": 0.1,
    "decoder_conf.positional_dropout_rate": 0.1,
    "decoder_conf.self_attention_dropout_rate": 0.1,
    "decoder_conf.src_attention_dropout_rate": 0.1,
    "decoder_conf.use_flash_attn": True,
    "model_conf.ctc_weight": 0.3,
    "model_conf.lsm_weight": 0.1,
    "model_conf.length_normalized_loss": False,
    "model_conf.sym_na": "<na>",
    "init": "xavier_uniform",
    "use_amp": True,
    "seed": 42,
    "optim": "adamw",
    "optim_conf.lr": 5e-4,
    "optim_conf.betas": [0.9, 0.98],
    "optim_conf.eps": 1e-6,
    "optim_conf.weight_decay": 0.0,
    "scheduler": "piecewiselinearwarmuplr",
    "scheduler_conf.warmup_steps_list": [0, 30000, 60000],
    "scheduler_conf.warmup_lr_list": [0.0, 5e-5, 5e-4],
    "batch_type": "unsorted",
    "batch_size": 64,
    "accum_grad": 4,
    "max_epoch": 45,
    "num_iters_per_epoch": 15000,
    "keep_nbest_models": 5,
    "nbest_averaging_interval": 5,
    "best_model_criterion": [["valid", "acc", "max"]],
    "preprocessor_conf.speech_length": 20,
    "preprocessor_conf.speech_init_silence": 20,
    "preprocessor_conf.text_prev_apply_prob": 1.0,
    "preprocessor_conf.time_apply_prob": 1.0,
    "preprocessor_conf.first_time_symbol": "<0.00>",
    "preprocessor_conf.last_time_symbol": "<20.00>",
    # the one setting we change: 0.04 was published, the time symbols step by 0.02
    "preprocessor_conf.speech_resolution": 0.02,
}


def test_published_settings_with_espnets_defaults(tmp_path):
    args = config.parse(config.load(CONF / "train_powsm.yaml"), tmp_path / "x.yaml")
    settings = vars(args)
    for choice in PowsmTask.class_choices_list:
        chosen = getattr(args, choice.name)
        if chosen is not None:
            defaults = get_default_kwargs(choice.get_class(chosen))
            settings[f"{choice.name}_conf"] = defaults | settings[f"{choice.name}_conf"]
    found = {}
    for key in PUBLISHED:
        value = settings
        for part in key.split("."):
            value = value[part]
        found[key] = value
    assert found == PUBLISHED


def test_published_model_has_the_published_size(tmp_path):
    """About 350 M parameters (paper, section 3), counted without allocating them."""
    settings = config.load(CONF / "train_powsm.yaml", ["normalize=null", "init=null"])
    args = config.parse(settings, tmp_path / "x.yaml")
    args.token_list = ["<blank>", "<unk>", "<na>", *(f"t{i}" for i in range(39_996))]
    args.token_list += ["<sos>", "<eos>", "<sop>"]
    assert len(args.token_list) == 40_002
    with torch.device("meta"):
        model = PowsmTask.build_model(args)
    assert 340e6 < sum(p.numel() for p in model.parameters()) < 380e6
