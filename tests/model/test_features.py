"""Features without a wait: those of ESPnet's `encode`, from the same random numbers."""

import numpy as np
import pytest
import torch
from espnet2.tasks.s2t import S2TTask
from s2t_examples import SETTINGS, TOKENS, make_batches
from tiny_model import SETTINGS as TINY

from powsm.model import features
from powsm.model.batch import Batch
from powsm.train import config

PUBLISHED_MASKS = {
    "apply_time_warp": False,
    "freq_mask_width_range": [0, 27],
    "num_freq_mask": 2,
    "time_mask_width_ratio_range": [0.0, 0.3],
    "num_time_mask": 4,
}


def build(tmp_path, settings=None, **changes):
    stats = tmp_path / "stats.npz"
    bins = TINY.get("frontend_conf", {}).get("n_mels", 80)
    ramp = np.linspace(-900.0, -500.0, bins)
    np.savez(stats, count=100, sum=ramp, sum_square=ramp**2 / 100 + 400.0)
    settings = SETTINGS | {
        "model": "powsm",
        "normalize": "global_mvn",
        "normalize_conf": {"stats_file": str(stats)},
        "specaug": "specaug",
        "specaug_conf": PUBLISHED_MASKS,
    }
    args = config.parse(settings | changes, tmp_path / "settings.yaml")
    args.token_list = TOKENS
    torch.manual_seed(0)
    return S2TTask.build_model(args)


def encoded(model, samples):
    batch, _ = make_batches(samples)
    batch = model.laid_out(Batch.of(batch))
    torch.manual_seed(3)
    return batch, model.encode_batch(batch)


@pytest.mark.parametrize("samples", [(12000, 12000, 12000), (9001, 16000, 12159)])
@pytest.mark.parametrize("is_training", [True, False])
def test_encoder_output_and_lengths_equal_espnet(tmp_path, samples, is_training):
    model = build(tmp_path).train(is_training)
    assert features.is_known(model)
    batch, ours = encoded(model, samples)
    torch.manual_seed(3)
    memory, lengths = model.encode(batch.speech, batch.speech_lengths)
    torch.testing.assert_close(ours.memory, memory, rtol=1e-6, atol=1e-6)
    assert ours.lengths.tolist() == lengths.tolist() == list(ours.n_frames)


@pytest.mark.parametrize(
    "changes",
    [
        {"interctc_layer_idx": [1], "interctc_use_conditioning": True},
        {"interctc_layer_idx": [1], "gradient_checkpoint_layers": [0, 1, 2]},
        {
            "interctc_layer_idx": [1],
            "interctc_use_conditioning": True,
            "use_sdpa": False,
            "attention_layer_type": "rel_selfattn",
            "pos_enc_layer_type": "rel_pos",
        },
        {"input_layer": "conv2d2"},
        {"layer_drop_rate": 0.5},
    ],
)
def test_every_encoder_equals_espnet_with_its_gradients(tmp_path, changes):
    model = build(tmp_path, encoder_conf=SETTINGS["encoder_conf"] | changes).train()
    assert features.is_known(model)
    batch, ours = encoded(model, (9001, 16000, 12159))
    torch.manual_seed(3)
    theirs, lengths = model.encode(batch.speech, batch.speech_lengths)
    theirs, between = theirs if isinstance(theirs, tuple) else (theirs, [])
    assert list(ours.n_frames) == lengths.tolist()
    outputs = [(ours.memory, theirs)]
    outputs += zip(ours.between, [hidden for _, hidden in between], strict=True)
    assert len(outputs) == 1 + ("interctc_layer_idx" in changes)
    for a, b in outputs:
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    used = list(model.encoder.parameters())

    def gradients(number):
        """Of a sum that is no norm's: the length of its output is always the same."""
        values = torch.cat([x[number].flatten() for x in outputs])
        total = values @ torch.arange(len(values)).sin()
        return torch.autograd.grad(total, used, allow_unused=True)

    for a, b in zip(gradients(0), gradients(1), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "masks",
    [
        {"time_mask_width_range": [0, 20], "replace_with_zero": False},
        {"time_mask_width_ratio_range": [0.2, 0.4]},
    ],
)
def test_masks_of_other_widths_and_their_mean_equal_espnet(tmp_path, masks):
    masks |= {k: v for k, v in PUBLISHED_MASKS.items() if "ratio" not in k}
    model = build(tmp_path, specaug_conf=masks).train()
    batch, ours = encoded(model, (9000, 16000, 12000))
    torch.manual_seed(3)
    memory, _ = model.encode(batch.speech, batch.speech_lengths)
    torch.testing.assert_close(ours.memory, memory, rtol=1e-6, atol=1e-6)


def test_audio_wider_than_its_longest_recording_is_cut_as_espnet_does(tmp_path):
    model = build(tmp_path).eval()
    batch, _ = make_batches((9000, 12000, 8000))
    batch["speech"] = torch.nn.functional.pad(batch["speech"], (0, 4000), value=0.5)
    batch = model.laid_out(Batch.of(batch))
    memory, _ = model.encode(batch.speech, batch.speech_lengths)
    torch.testing.assert_close(model.encode_batch(batch).memory, memory)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalize": "utterance_mvn", "normalize_conf": {}},
        {"specaug_conf": PUBLISHED_MASKS | {"apply_time_warp": True}},
    ],
)
def test_another_front_takes_espnets_own_way(tmp_path, changes):
    model = build(tmp_path, **changes).train()
    assert not features.is_known(model)
    batch, ours = encoded(model, (9000, 12000, 8000))
    torch.manual_seed(3)
    memory, lengths = model.encode(batch.speech, batch.speech_lengths)
    assert torch.equal(ours.memory, memory)
    assert ours.n_frames == lengths.tolist()


def ctc_backward_on_meta(_grad, log_probs, labels, lengths, target_lengths, *_):
    """PyTorch's has no meta kernel; lengths are numbers, which need no device."""
    assert all(isinstance(n, int) for n in (*lengths, *target_lengths))
    assert labels.shape == (len(target_lengths), max(target_lengths))
    return torch.empty_like(log_probs)


def test_nothing_is_asked_of_the_device(tmp_path, monkeypatch):
    """On the meta device a number that is asked for is an error."""
    model = build(tmp_path).train()
    batch, _ = make_batches()
    batch = model.laid_out(Batch.of(batch)).to(torch.device("meta"))
    model.to("meta")
    monkeypatch.setattr(torch.ops.aten, "_ctc_loss_backward", ctc_backward_on_meta)
    model(**batch.arguments())[0].backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(RuntimeError, match="meta"):  # as this test relies on
        model(**batch.tensors())
