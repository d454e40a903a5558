"""The shared encoder against stock ESPnet on the same examples as separate rows."""

from collections import Counter

import numpy as np
import pytest
import torch
from espnet2.s2t.espnet_model import ESPnetS2TModel
from espnet2.tasks.s2t import S2TTask
from s2t_examples import SETTINGS, TOKENS, make_batches

from powsm.model.batch import Batch
from powsm.model.kernels import compile_layers
from powsm.model.s2t import PowsmModel
from powsm.train import config

QUIET = {"report_cer": False, "report_wer": False}


def build(tmp_path, model_conf, model="powsm", encoder_conf=None):
    settings = SETTINGS | {"model": model, "model_conf": model_conf}
    if encoder_conf:
        settings["encoder_conf"] = settings["encoder_conf"] | encoder_conf
    args = config.parse(settings, tmp_path / f"{model}.yaml")
    args.token_list = TOKENS
    torch.manual_seed(0)
    return S2TTask.build_model(args)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("samples", [(12000, 12000, 12000), (9000, 16000, 12000)])
@pytest.mark.parametrize("inter", [False, True])
@pytest.mark.parametrize("share", [True, False])
def test_loss_and_gradients_equal_espnet_on_separate_rows(
    tmp_path, monkeypatch, ctc_weight, samples, inter, share
):
    conf = {"ctc_weight": ctc_weight, "lsm_weight": 0.1}
    encoder = {}
    if inter:
        if ctc_weight != 0.3:
            pytest.skip("intermediate CTC belongs to the hybrid loss")
        conf["interctc_weight"] = 0.5
        encoder = {"interctc_layer_idx": [1], "interctc_use_conditioning": True}
    ours = build(tmp_path, conf | {"share_encoder": share}, encoder_conf=encoder)
    stock = build(
        tmp_path,
        conf | {"report_cer": False, "report_wer": False},
        model="espnet",
        encoder_conf=encoder,
    )
    assert type(ours) is PowsmModel and type(stock) is ESPnetS2TModel
    stock.load_state_dict(ours.state_dict(), strict=True)  # the same names and shapes
    ours.load_state_dict(stock.state_dict(), strict=True)
    # all of it in float64, CTC too, which ESPnet takes to float32
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)
    ours, stock = ours.double(), stock.double()
    batch, rows = make_batches(samples)
    for inputs in (batch, rows):
        inputs["speech"] = inputs["speech"].double()
    loss, stats, weight = ours(**batch)
    stock_loss, stock_stats, stock_weight = stock(**rows)
    assert float(loss) == pytest.approx(float(stock_loss), rel=1e-9)
    assert int(weight) == int(stock_weight) == 8
    if ctc_weight != 1.0:
        assert float(stats["acc"]) == pytest.approx(float(stock_stats["acc"]), abs=1e-6)
    loss.backward()
    stock_loss.backward()
    for (name, mine), theirs in zip(
        ours.named_parameters(), stock.parameters(), strict=True
    ):
        if theirs.grad is None:
            assert mine.grad is None or mine.grad.abs().max() == 0, name
            continue
        torch.testing.assert_close(
            mine.grad, theirs.grad, rtol=1e-6, atol=1e-9, msg=name
        )


def test_example_audio_defaults_to_one_example_a_recording(tmp_path):
    model = build(tmp_path, {"ctc_weight": 0.3})
    batch, rows = make_batches()
    assert float(model(**batch)[0]) == pytest.approx(float(model(**rows)[0]), rel=1e-5)


def test_guide_is_small_on_the_diagonal_and_large_off_it(tmp_path):
    model = build(tmp_path, {"ctc_weight": 0.3, "guided_attention_weight": 1.0})
    frames, place = 24, torch.tensor([[0.25, 0.75]])
    diagonal = torch.zeros(1, 2, 2, frames)
    diagonal[:, :, 0, 6] = diagonal[:, :, 1, 18] = 1  # at 6.5 / 24 and 18.5 / 24
    wrong = diagonal.flip(2)
    values = []
    for attention in (diagonal, wrong):
        for layer in model.decoder.decoders:
            layer.src_attn.attn = attention
        values.append(model._guide(place, torch.tensor([frames])))
    # half a frame, 1/48, and half the text, 25/48, in widths of 0.2
    assert values[0] == pytest.approx(1 - np.exp(-((1 / 9.6) ** 2) / 2), abs=1e-6)
    expected = [1 - np.exp(-((d / 9.6) ** 2) / 2) for d in (25, 23)]
    assert values[1].tolist() == [pytest.approx(expected, abs=1e-6)]


def test_guide_counts_the_text_of_every_example_once(tmp_path, monkeypatch):
    """All attention wrong: the penalty is the number of text tokens, about 1 each."""
    monkeypatch.setattr("powsm.model.s2t.GUIDE_WIDTH", 1e-6)
    model = build(tmp_path, {"ctc_weight": 0.3, "guided_attention_weight": 1.0})
    batch, _ = make_batches()
    model.train()
    _, stats, _ = model(**batch)
    # what is predicted after <sos> and the three prompt symbols, <eos> included; a
    # frame that stands just where its token does is not punished
    n_text = float((batch["text_lengths"] - 3 + 1).float().mean())
    assert float(stats["loss_guide"]) == pytest.approx(n_text, rel=1e-2)


def test_compiled_layers_change_nothing(tmp_path):
    """Traced, for batches of two shapes, and run by the operators that were found."""
    model = build(tmp_path, {})
    ours, _ = make_batches()
    other, _ = make_batches(samples=(15000, 11000), tasks=(2, 4))

    def gradients():
        found = []
        for batch in (ours, other):
            model.zero_grad()
            loss = model(**batch)[0]
            loss.backward()
            grads = {k: p.grad.clone() for k, p in model.named_parameters()}
            found.append({"loss": loss.detach()} | grads)
        return found

    expected = gradients()
    names = list(model.state_dict())
    assert compile_layers(model, gradients, backend="eager") is None
    torch.testing.assert_close(gradients(), expected, rtol=1e-4, atol=1e-6)
    assert list(model.state_dict()) == names


def test_layers_that_cannot_be_compiled_are_left_as_they_are(tmp_path):
    model = build(tmp_path, {})
    ours, _ = make_batches()

    def refused(graph, inputs):
        raise RuntimeError("no triton here")

    fault = compile_layers(model, lambda: model(**ours), backend=refused)
    assert "no triton here" in fault
    model(**ours)


def test_gradient_checkpoints_change_nothing(tmp_path):
    plain = build(tmp_path, {"ctc_weight": 0.3})
    batch, _ = make_batches()
    plain(**batch)[0].backward()
    expected = [p.grad.clone() for p in plain.parameters()]
    plain.zero_grad()
    plain.decoder.gradient_checkpoint_layers = [1, 2]
    plain(**batch)[0].backward()
    for p, grad in zip(plain.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad)


@pytest.mark.parametrize("share", [True, False])
def test_ctc_targets_by_example_equal_espnet_on_separate_rows(tmp_path, share):
    """Figure 2's mixed targets: phones for one example, orthography for another."""
    ours = build(tmp_path, {"ctc_weight": 0.3, "share_encoder": share})
    batch, rows = make_batches(samples=(12000, 12000, 12000))
    targets = torch.tensor([[12, 13, 14, 9], [10, 11, -1, -1], [13, 12, 13, -1]])
    lengths = torch.tensor([4, 2, 3])
    # recordings have 4, 1 and 3 examples; the first has two targets
    chosen = torch.tensor([1, 0, 1, 0, 2, 3, 3, 3])
    targets, lengths = targets[[0, 1, 2, 0]], lengths[[0, 1, 2, 0]]
    batch |= {"text_ctc": targets, "text_ctc_lengths": lengths, "example_ctc": chosen}
    rows |= {"text_ctc": targets[chosen], "text_ctc_lengths": lengths[chosen]}
    stock = build(tmp_path, {"ctc_weight": 0.3, **QUIET}, model="espnet")
    stock.load_state_dict(ours.state_dict())
    loss, theirs = ours(**batch)[0], stock(**rows)[0]
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_ctc_over_phones_equals_a_head_whose_other_tokens_never_speak(tmp_path):
    small = build(tmp_path, {"ctc_weight": 0.5, "ctc_vocab": "phones"})
    full = build(tmp_path, {"ctc_weight": 0.5})
    kept = [0, 1, 12, 13, 14]  # blank, <unk> and three phones
    state = small.state_dict()
    assert state["ctc.ctc_lo.weight"].shape[0] == len(kept)
    for name, never in (("ctc.ctc_lo.weight", 0.0), ("ctc.ctc_lo.bias", -1e4)):
        whole = torch.full_like(full.state_dict()[name], never)
        whole[kept] = state[name]
        state[name] = whole
    full.load_state_dict(state)
    batch, _ = make_batches()
    ours, theirs = small(**batch), full(**batch)
    assert ours[0].item() == pytest.approx(theirs[0].item(), rel=1e-6)
    memory, _ = small.encode(batch["speech"], batch["speech_lengths"])
    torch.testing.assert_close(
        small.ctc.log_softmax(memory), full.ctc.log_softmax(memory)
    )
    small.double(), full.double()  # and so do the gradients of the encoder
    batch["speech"] = batch["speech"].double()
    small(**batch)[0].backward()
    full(**batch)[0].backward()
    for (name, a), (_, b) in zip(
        small.encoder.named_parameters(), full.encoder.named_parameters(), strict=True
    ):
        torch.testing.assert_close(a.grad, b.grad, msg=name, rtol=1e-4, atol=1e-6)


def test_self_conditioning_feeds_the_phones_of_a_small_head_back(tmp_path):
    encoder = {"interctc_layer_idx": [1], "interctc_use_conditioning": True}
    conf = {"ctc_weight": 0.3, "interctc_weight": 0.5, "ctc_vocab": "phones"}
    model = build(tmp_path, conf, encoder_conf=encoder)
    batch, _ = make_batches()
    loss, stats, _ = model(**batch)
    loss.backward()
    assert torch.isfinite(stats["loss_interctc"])
    grad = model.encoder.conditioning_layer.weight.grad
    spoken = grad.abs().sum(0) > 0
    assert spoken[[0, 1, 12, 13, 14]].all() and spoken.sum() == 5


def test_statistics_of_parts_weigh_up_to_those_of_the_whole(tmp_path):
    """As validation adds them up over its batches."""
    model = build(tmp_path, {"ctc_weight": 0.3, "lsm_weight": 0.1}).eval()
    whole = Batch.of(make_batches((12000, 12000, 12000))[0])
    sums, weights = Counter(), Counter()
    with torch.no_grad():
        for part in whole.parts(3):
            stats = model(**part.tensors())[1]
            its_weights = model.stat_weights(stats, part.text)
            weights.update(its_weights)
            sums.update({key: float(stats[key]) * n for key, n in its_weights.items()})
        expected = model(**whole.tensors())[1]
    assert sums.keys() == expected.keys()
    for key, value in expected.items():
        assert sums[key] / weights[key] == pytest.approx(float(value), rel=1e-4), key


@pytest.mark.parametrize("between", [[0.0, 0.5], [0.7, 0.3], [0.5, 1.0]])
def test_ctc_weight_range_that_makes_no_sense(tmp_path, between):
    with pytest.raises(ValueError, match="two rising numbers between 0 and 1"):
        build(tmp_path, {"ctc_weight": 0.3, "ctc_weight_range": between})
