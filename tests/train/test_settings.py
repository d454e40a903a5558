"""Settings are typed: what no training can have is refused by its key, at once."""

from pathlib import Path

import pytest
import yaml
from tiny_model import SETTINGS

from powsm.settings import ConfigError, apply_overrides, fits
from powsm.train import config
from powsm.train.faults import faults

BAD = {
    # a number where a mapping belongs, and the other way round
    "optim_conf=3": "optim_conf: 3, expected 'key: value' lines",
    "encoder_conf=[1]": "encoder_conf: [1], expected 'key: value' lines",
    "batch_conf=fast": "batch_conf: 'fast', expected 'key: value' lines",
    "seed={a: 1}": "seed: {'a': 1}, expected a whole number",
    # types
    "optim_conf.lr=abc": "optim_conf.lr: 'abc', expected a number",
    "optim_conf.lr=true": "optim_conf.lr: True, expected a number",
    "optim_conf.lr=.nan": "optim_conf.lr: nan, expected a number",
    "optim_conf.betas=0.9": "optim_conf.betas: 0.9, expected a list",
    "optim_conf.betas=[0.9]": "optim_conf.betas: [0.9], expected a list",
    "max_epoch=many": "max_epoch: 'many', expected a whole number",
    "max_epoch=2.5": "max_epoch: 2.5, expected a whole number",
    "max_epoch=": "max_epoch: None, expected a whole number",
    "max_epoch=true": "max_epoch: True, expected a whole number",
    "use_amp=perhaps": "use_amp: 'perhaps', expected true or false",
    "grad_clip=tight": "grad_clip: 'tight', expected a number",
    "encoder_conf.num_blocks=two": "encoder_conf.num_blocks: 'two', expected a whole",
    "encoder_conf.use_ffn=1": "encoder_conf.use_ffn: 1, expected true or false",
    "encoder_conf.dropout_rate=low": "encoder_conf.dropout_rate: 'low', expected a num",
    "batch_conf.update_batches=2.5": "batch_conf.update_batches: 2.5, expected a whole",
    "batch_conf.batch_seconds=": "batch_conf.batch_seconds: None, expected a number",
    "model_conf.ctc_weight=high": "model_conf.ctc_weight: 'high', expected a number",
    "tasks=5": "tasks: unknown 5; the tasks are",
    # ranges
    "max_epoch=-1": "max_epoch: -1, expected 1 or more",
    "max_epoch=0": "max_epoch: 0, expected 1 or more",
    "num_iters_per_epoch=0": "num_iters_per_epoch: 0, expected 1 or more",
    "checkpoint_every_n_updates=0": "checkpoint_every_n_updates: 0, expected 1 or more",
    "keep_nbest_models=0": "keep_nbest_models: 0, expected 1 or more",
    "keep_nbest_models=[1, -2]": "keep_nbest_models: -2, expected 1 or more",
    "log_interval=-5": "log_interval: -5, expected 1 or more",
    "ctc_only_updates=-1": "ctc_only_updates: -1, expected 0 or more",
    "ngpu=-1": "ngpu: -1, expected 0 or more",
    "num_workers=-1": "num_workers: -1, expected 0 or more",
    "seed=-1": "seed: -1, expected 0 to 4294967295",
    "ema_decay=1.0": "ema_decay: 1.0, expected 0 to below 1",
    "model_conf.ctc_weight=2": "model_conf.ctc_weight: 2, expected 0 to 1",
    "model_conf.lsm_weight=1.0": "model_conf.lsm_weight: 1.0, expected 0 to below 1",
    "optim_conf.lr=-0.1": "optim_conf.lr: -0.1, expected 0 or more",
    "encoder_conf.dropout_rate=1.5": "encoder_conf.dropout_rate: 1.5, expected 0 to 1",
    "batch_conf.update_batches=0": "batch_conf: update_batches is 0, expected 1",
    "batch_conf.batch_seconds=-3": "batch_conf: batch_seconds is -3, expected mor",
    "batch_conf.window_share=2": "batch_conf: window_share is 2, expected 0 to 1",
    # sizes that do not go together
    "encoder_conf.attention_heads=3": "encoder_conf.attention_heads: 3 does not divide",
    "decoder_conf.attention_heads=5": "decoder_conf.attention_heads: 5 does not divide",
    "encoder_conf.cgmlp_conv_kernel=8": "cgmlp_conv_kernel: 8, expected an odd number",
    # names
    "best_model_criterion=[[valid, loss, least]]": "'least' is neither min nor max",
    "best_model_criterion=[valid, loss, min]": "best_model_criterion: ['valid', 'loss'",
    "best_model_criterion=[[dev, loss, min]]": "of train or valid",
    "best_model_criterion=[]": "best_model_criterion: [], expected lists such as",
    "tasks=[pr, ars]": "tasks: unknown 'ars'; did you mean 'asr'?",
    "tasks=[pr, pr]": "tasks: pr pr names one twice",
    "tasks=[]": "tasks: [], expected a list that is not empty",
    "ctc_target=phonemes": "ctc_target: 'phonemes', expected one of phones",
    "iterator=stock": "iterator: 'stock', expected one of utterances published",
    "init=random": "init: 'random', expected one of xavier_uniform",
    "sedd=1": "unknown key 'sedd'; did you mean 'seed'?",
}


@pytest.mark.parametrize("pair", BAD)
def test_setting_that_no_training_can_have_is_refused_by_its_key(tmp_path, pair):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    with pytest.raises(ConfigError) as refused:
        config.load(path, [pair])
    message = str(refused.value)
    assert BAD[pair] in message and message.startswith(f"{path}: ")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == [path]


def test_all_faults_are_told_at_once(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    changed = apply_overrides(
        SETTINGS, ["model_conf.ctc_weight=2", "seed=-1", "sedd=1"]
    )
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(ConfigError, match="3 fault") as refused:
        config.load(path)
    for named in ("model_conf.ctc_weight: 2", "seed: -1", "unknown key 'sedd'"):
        assert named in str(refused.value)


@pytest.mark.parametrize(
    "pair",
    [
        *(
            "optim_conf.lr=1",
            "grad_clip=5",
            "grad_clip=-1",
            "optim_conf.betas=[0, 0.9]",
        ),
        *("keep_nbest_models=[1, 3]", "num_iters_per_epoch=none", "log_interval="),
        *("normalize=", "normalize=none", "specaug=null"),
        *("scheduler=", "tasks=[pr]", "tasks=pr", "ema_decay=0.999", "use_amp=yes"),
        *("model_conf.ctc_weight=0", "model_conf.ctc_weight_range=[0.1, 0.9]"),
        *("batch_conf={batch_seconds: auto, update_seconds: 60}", "seed=0"),
    ],
)
def test_settings_that_are_right_pass(pair):
    assert faults(apply_overrides(SETTINGS, [pair]), config.get_parser()) == []


def test_choice_that_a_model_needs_may_not_be_none():
    told = faults(apply_overrides(SETTINGS, ["frontend="]), config.get_parser())
    assert "frontend: None, expected text" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<blank>\n<unk>\na\na\n", ":4: token 'a' is on line 3 already"),
        ("<blank>\n\n<unk>\n", ":2: an empty line"),
        ("", "no tokens"),
    ],
)
def test_token_list_with_a_fault_is_refused(tmp_path, text, message):
    path = Path(tmp_path / "tokens.txt")
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        config.check_tokens(path)


@pytest.mark.parametrize(
    ("value", "hint", "is_right"),
    [
        (3, float, True),
        (3.0, int, False),
        (float("inf"), float, False),
        (None, int | None, True),
        ("x", int | None, False),
        ([1, 2], tuple[float, float], True),
        ([1], tuple[float, float], False),
        ([1, 2, 3], tuple[int, ...], True),
        ({"a": 1}, dict, True),
        ([1], dict, False),
        (object(), object, True),
    ],
)
def test_values_fit_type_hints(value, hint, is_right):
    assert fits(value, hint) == is_right
