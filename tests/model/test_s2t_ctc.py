"""The encoder-only model against stock ESPnet on the same examples as separate rows."""

import argparse

import numpy as np
import pytest
import torch
from espnet2.s2t.espnet_ctc_model import ESPnetS2TCTCModel

from powsm.errors import PowsmError
from powsm.model.batch import Batch
from powsm.model.build import task_of_model
from powsm.model.ctc_heads import disagreement
from powsm.model.s2t_ctc import PowsmCtcModel

TOKENS = (
    ["<blank>", "<unk>", "<na>", "<eng>", "<asr>", "<pr>", "<g2p>", "<p2g>"]
    + ["<notimestamps>", "▁", "a", "b", "/p/", "/ɔ/", "/s/"]
    + ["<sos>", "<eos>", "<sop>"]
)
TASK_IDS = {"asr": 4, "g2p": 6, "p2g": 7, "pr": 5}
NA = 2


def build(model="powsm_ctc", *, model_conf=None, encoder_conf=None, **changes):
    """A model with four blocks, heads after the first and third, and a prompt."""
    settings = {
        "token_list": TOKENS,
        "input_size": None,
        "frontend": "default",
        "frontend_conf": {"fs": 16000, "n_fft": 512, "win_length": 400},
        "specaug": None,
        "normalize": "utterance_mvn",
        "normalize_conf": {},
        "encoder": "e_branchformer_ctc",
        "encoder_conf": {
            "input_layer": "conv2d",
            "output_size": 16,
            "attention_heads": 2,
            "attention_layer_type": "selfattn",
            "pos_enc_layer_type": "abs_pos",
            "cgmlp_linear_units": 32,
            "cgmlp_conv_kernel": 7,
            "num_blocks": 4,
            "dropout_rate": 0.0,
            "positional_dropout_rate": 0.0,
            "use_ffn": True,
            "macaron_ffn": True,
            "linear_units": 32,
            "merge_conv_kernel": 7,
            "interctc_layer_idx": [1, 3],
            "interctc_use_conditioning": True,
            "use_cross_attention": [False, True, False, True],
        }
        | (encoder_conf or {}),
        "promptencoder": "transformer",
        "promptencoder_conf": {
            "output_size": 8,
            "attention_heads": 2,
            "linear_units": 16,
            "num_blocks": 1,
            "dropout_rate": 0.0,
            "positional_dropout_rate": 0.0,
            "attention_dropout_rate": 0.0,
        },
        "ctc_conf": {},
        "model": model,
        "model_conf": {
            "interctc_weight": 0.8,
            "ctc_asr_only": [True, False, False],
            "report_cer": False,
            "report_wer": False,
        }
        | (model_conf or {}),
        "init": "xavier_uniform",
    } | changes
    torch.manual_seed(0)
    return task_of_model("powsm_ctc").build_model(argparse.Namespace(**settings))


def tensors(rows):
    lengths = torch.tensor([len(r) for r in rows])
    out = torch.full((len(rows), int(lengths.max())), -1)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    return out, lengths


def make_batches(samples=(9000, 16000, 12000), tasks=(4, 1, 3), without_text=()):
    """The same examples laid out our way and ESPnet's: one row each.

    Args:
        without_text: numbers of examples whose phone target is `<na>`.
    """
    rng = np.random.default_rng(1)
    speech = torch.zeros(len(samples), max(samples))
    for row, n in zip(speech, samples, strict=True):
        row[:n] = torch.from_numpy(rng.normal(0, 0.1, n).astype(np.float32))
    lengths = torch.tensor(samples)
    text, prev, ctc, audio = [], [], [], []
    for u, n_tasks in enumerate(tasks):
        phones = rng.integers(12, 15, 3 + u).tolist()
        for task in ["asr", "g2p", "p2g", "pr"][-n_tasks:]:
            start = [3, TASK_IDS[task]]
            text.append([*start, 8, *rng.integers(10, 15, 2 + len(text) % 4).tolist()])
            prompted = task in ("g2p", "p2g")
            prev.append([9, *rng.integers(10, 15, 3 + u)] if prompted else [NA])
            ctc.append([*start, NA] if len(ctc) in without_text else [*start, *phones])
            audio.append(u)
    batch = {}
    for name, rows in (("text", text), ("text_prev", prev), ("text_ctc", ctc)):
        batch[name], batch[f"{name}_lengths"] = tensors(rows)
    batch["prefix"], batch["prefix_lengths"] = tensors([row[:2] for row in text])
    batch["prefix"][0, 0] = 1  # a language that is not told
    audio = torch.tensor(audio)
    ours = batch | {
        "speech": speech,
        "speech_lengths": lengths,
        "example_audio": audio,
        "example_ctc": torch.arange(len(audio)),
    }
    rows = batch | {"speech": speech[audio], "speech_lengths": lengths[audio]}
    return ours, {k: v.clone() for k, v in rows.items()}


@pytest.mark.parametrize(
    "samples", [(9000, 16000, 12000), (320_000, 320_000, 320_000)], ids=["cut", "20s"]
)
@pytest.mark.parametrize(
    "model_conf",
    [
        {},
        {"interctc_weight": 0.0, "ctc_asr_only": [False]},
        {"ctc_asr_only": [True, True, True]},
    ],
    ids=["published", "last head", "phones"],
)
def test_loss_and_gradients_equal_stock(model_conf, samples):
    ours, rows = make_batches(samples)
    model = build(model_conf=model_conf)
    stock = build("espnet_ctc", model_conf=model_conf)
    assert type(model) is PowsmCtcModel and type(stock) is ESPnetS2TCTCModel
    stock.load_state_dict(model.state_dict())  # the same names, every one
    for each, batch in ((model, ours), (stock, rows)):  # in which 0 is 0
        each.double()
        batch["speech"] = batch["speech"].double()
    loss, stats, weight = model(**ours)
    expected, expected_stats, _ = stock(**rows)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert weight.item() == 8
    for key in ("loss", "loss_ctc"):
        assert stats[key].item() == pytest.approx(expected_stats[key].item(), rel=1e-6)
    loss.backward()
    expected.backward()
    gradients = dict(stock.named_parameters())
    for name, parameter in model.named_parameters():
        expected = gradients[name].grad
        if expected is None:
            assert parameter.grad is None, name
            continue
        error = (parameter.grad - expected).norm() / expected.norm().clamp(min=1e-6)
        assert error < 1e-5, name


def test_example_without_a_target_is_left_out_of_its_heads():
    ours, rows = make_batches(without_text=(1, 6))
    model, stock = build(), build("espnet_ctc")
    stock.load_state_dict(model.state_dict())
    assert model(**ours)[0].item() == pytest.approx(stock(**rows)[0].item(), rel=1e-5)


def test_heads_are_those_of_stock_on_the_frames_of_the_audio():
    ours, rows = make_batches()
    model, stock = build().eval(), build("espnet_ctc").eval()
    stock.load_state_dict(model.state_dict())
    names = ("speech", "speech_lengths", "text_prev", "text_prev_lengths", "prefix")
    with torch.no_grad():
        heads, n_positions = model.heads(
            *(ours[name] for name in names), ours["example_audio"]
        )
        (last, intermediate), lengths = stock.encode(
            *(rows[name] for name in names), rows["prefix_lengths"]
        )
    assert list(heads) == [1, 3, 4]
    assert n_positions.tolist() == lengths.tolist()
    expected = dict(intermediate) | {4: last}
    for layer, log_probs in heads.items():
        stock_probs = stock.ctc.log_softmax(
            stock.frames(expected[layer], rows["prefix"])
        )
        for row, n in enumerate(n_positions):
            heard = log_probs[row, 2:n], stock_probs[row, : n - 2]
            torch.testing.assert_close(*heard, atol=1e-5, rtol=1e-4)


def test_longest_recording_does_not_read_the_others():
    """Nor do they read it: what is padding for one is masked in every block."""
    ours, _ = make_batches()
    longest, example = 1, 4
    alone = {name: value[example : example + 1] for name, value in ours.items()}
    alone["speech"] = ours["speech"][longest : longest + 1]
    alone["speech_lengths"] = ours["speech_lengths"][longest : longest + 1]
    alone["text_prev"] = alone["text_prev"][:, : alone["text_prev_lengths"].max()]
    model = build().eval()
    names = ("speech", "speech_lengths", "text_prev", "text_prev_lengths", "prefix")
    with torch.no_grad():
        together, _ = model.heads(
            *(ours[name] for name in names), ours["example_audio"]
        )
        by_itself, _ = model.heads(*(alone[name] for name in names))
    torch.testing.assert_close(
        together[4][example], by_itself[4][0], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_conf": {"ctc_asr_only": [True, False]}}, "there are 3 CTC heads"),
        (
            {"encoder_conf": {"pos_enc_layer_type": "scaled_abs_pos"}},
            "use model espnet_ctc for others",
        ),
        ({"encoder_conf": {"input_layer": "conv2d8"}}, "use model espnet_ctc"),
    ],
)
def test_network_that_it_does_not_know_is_refused(changes, message):
    with pytest.raises(PowsmError, match=message):
        build(**changes)


# ------------------------------------------------------------ beyond the papers

# masks of every width, so that two views of a recording differ
MASKS = {
    "specaug": "specaug",
    "specaug_conf": {"num_freq_mask": 2, "num_time_mask": 10}
    | {"apply_time_warp": False, "time_mask_width_ratio_range": [0.0, 0.2]},
}


def gradients(model):
    return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}


def test_views_without_masks_cost_nothing_and_learn_what_one_learns():
    ours, _ = make_batches(without_text=(1, 6))
    plain, twice = build(), build(model_conf={"consistency_weight": 3.0}, **MASKS)
    twice.load_state_dict(plain.state_dict())
    twice.specaug = None
    for model in (plain, twice):
        model.double()
    ours["speech"] = ours["speech"].double()
    (one, stats, n), (two, twice_stats, n_twice) = plain(**ours), twice(**ours)
    assert "loss_consistency" not in stats
    assert twice_stats["loss_consistency"].item() == pytest.approx(0.0, abs=1e-6)
    assert two.item() == pytest.approx(one.item(), rel=1e-6)
    assert n.item() == n_twice.item() == 8
    one.backward(), two.backward()
    expected = gradients(plain)
    for name, grad in gradients(twice).items():
        torch.testing.assert_close(grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_consistency_is_that_of_every_head_weighted_as_its_loss():
    ours, _ = make_batches()
    losses = {}
    for weight in (0.5, 1.5):
        model = build(model_conf={"consistency_weight": weight}, **MASKS)
        torch.manual_seed(5)  # the same masks
        loss, stats, _ = model(**ours)
        plain = 0.2 * stats["loss_ctc"] + 0.4 * (
            stats["loss_interctc_layer1"] + stats["loss_interctc_layer3"]
        )
        assert loss.item() == pytest.approx(
            (plain + weight * stats["loss_consistency"]).item(), rel=1e-5
        )
        losses[weight] = (plain.item(), stats["loss_consistency"].item())
    assert losses[0.5] == losses[1.5] and losses[0.5][1] > 1e-3
    torch.manual_seed(5)
    batch = Batch.of({k: v for k, v in ours.items() if not k.startswith("prefix")})
    batch, prefix = batch.twice(), ours["prefix"].repeat(2, 1)
    heads, lengths = model._heads(
        *(batch.speech, batch.speech_lengths, batch.text_prev),
        *(batch.text_prev_lengths, prefix, batch.example_audio),
    )
    one, three, last = (disagreement(h.logits, lengths).mean().item() for h in heads)
    assert losses[0.5][1] == pytest.approx(0.2 * last + 0.4 * (one + three), rel=1e-5)


def test_both_views_are_told_the_same_language():
    ours, _ = make_batches()
    ours = {k: v for k, v in ours.items() if not k.startswith("prefix")}
    model = build(model_conf={"consistency_weight": 1.0}, **MASKS)
    model.lang_apply_prob, model.specaug = 0.5, None
    for seed in range(3):
        torch.manual_seed(seed)
        assert model(**ours)[1]["loss_consistency"].item() < 1e-4


def test_evaluation_hears_a_recording_once():
    ours, _ = make_batches()
    plain, twice = (
        build(**MASKS),
        build(model_conf={"consistency_weight": 1.0}, **MASKS),
    )
    twice.load_state_dict(plain.state_dict())
    (one, stats, _), (two, twice_stats, _) = plain.eval()(**ours), twice.eval()(**ours)
    assert torch.equal(one, two) and stats.keys() == twice_stats.keys()


@pytest.mark.parametrize("weight", [None, 0.0])
def test_switches_that_are_off_change_no_bit(weight):
    """The masks, too, are those of a model that knows neither switch."""
    ours, _ = make_batches()
    off = {} if weight is None else {"consistency_weight": 0.0, "interctc_vocab": "all"}
    off |= {} if weight is None else {"teacher": None, "teacher_weight": 2.0}
    torch.manual_seed(0)
    model, plain = build(model_conf=off, **MASKS), build(**MASKS)
    found = []
    for each in (model, plain):
        torch.manual_seed(7)
        loss = each(**ours)[0]
        loss.backward()
        found.append((loss, gradients(each)))
    (one, grads), (two, expected) = found
    assert torch.equal(one, two) and grads.keys() == expected.keys()
    assert all(torch.equal(grads[name], expected[name]) for name in grads)


def silenced(model):
    """Words and <eos> say nothing."""
    with torch.no_grad():
        model.ctc.ctc_lo.bias[[10, 11, 15, 16, 17]] = -1e4
    return model


def test_heads_of_phones_alone_equal_heads_whose_other_tokens_never_speak():
    """All heads learn phones here, so that the last says no other token either."""
    ours, _ = make_batches()
    conf = {"ctc_asr_only": [True, True, True]}
    some = build(model_conf=conf | {"interctc_vocab": "phones"})
    whole = build(model_conf=conf)
    assert some.state_dict().keys() == whole.state_dict().keys()
    whole.load_state_dict(some.state_dict())
    silenced(some), silenced(whole)
    ours["text_ctc"][ours["text_ctc"] == 9] = 13
    one, two = some(**ours)[0], whole(**ours)[0]
    assert one.item() == pytest.approx(two.item(), rel=1e-6)
    one.backward(), two.backward()
    expected = gradients(whole)
    for name, grad in gradients(some).items():
        torch.testing.assert_close(grad, expected[name], atol=1e-4, rtol=1e-3, msg=name)


def test_heads_of_phones_alone_leave_the_last_head_all_tokens():
    ours, _ = make_batches()
    model = build(model_conf={"interctc_vocab": "phones"}).eval()
    names = ("speech", "speech_lengths", "text_prev", "text_prev_lengths", "prefix")
    with torch.no_grad():
        heads, _ = model.heads(*(ours[n] for n in names), ours["example_audio"])
    totals = {block: scores.exp().sum(-1) for block, scores in heads.items()}
    for total in totals.values():
        torch.testing.assert_close(total, torch.ones_like(total))
    words = [10, 11]  # a and b
    assert (heads[1][..., words] < -1e3).all()
    assert (heads[3][..., words] > -1e3).all() and (heads[4][..., words] > -1e3).all()


class Teacher:
    """Says something of blank and the three phones, the same whenever it is asked."""

    token_ids = torch.tensor([0, 12, 13, 14])

    def __call__(self, speech, lengths):
        n_frames = ((speech.size(1) // 128 + 1 - 3) // 2 + 1 - 3) // 2 + 1  # hop 128
        said = torch.randn(
            *(len(speech), n_frames, 4), generator=torch.Generator().manual_seed(2)
        )
        return said.log_softmax(-1)


def test_teacher_is_followed_where_phones_are_taught():
    """In every frame of every head that is taught them, blank and phones alone."""
    ours, _ = make_batches()
    model = build(model_conf={"teacher_weight": 0.7})
    plain = model(**ours)[0].item()
    model.teacher = Teacher()
    loss, stats, _ = model(**ours)
    batch = Batch.of({k: v for k, v in ours.items() if not k.startswith("prefix")})
    heads, lengths = model._heads(
        *(batch.speech, batch.speech_lengths, batch.text_prev),
        *(batch.text_prev_lengths, ours["prefix"], batch.example_audio),
    )
    said = Teacher()(batch.speech, batch.speech_lengths).exp()
    apart = []
    for head, taught in zip(heads, ({4, 5, 6, 7}, {5, 6}, {5, 6}), strict=True):
        total = 0.0
        for row in range(8):
            if int(batch.text[row, 1]) not in taught:  # of pr and g2p phones are last
                continue
            for frame in range(int(lengths[row]) - 2):
                p = said[batch.example_audio[row], frame]
                q = head.logits[row, 2 + frame, [0, 12, 13, 14]].softmax(-1)
                total += (p * (p / q).log()).sum().item()
        apart.append(total / 8)
    expected = 0.2 * apart[2] + 0.4 * (apart[0] + apart[1])
    assert expected > 1
    assert stats["loss_teacher"].item() == pytest.approx(expected, rel=1e-4)
    assert loss.item() == pytest.approx(plain + 0.7 * expected, rel=1e-5)
    assert "loss_teacher" in model.stat_names
    model.eval()
    assert model(**ours)[0].item() == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("vocab", ["all", "phones"])
def test_teacher_is_heard_once_for_both_views_and_by_heads_of_phones(vocab):
    ours, _ = make_batches()
    conf = {"interctc_vocab": vocab, "ctc_asr_only": [True, True, False]}
    one = build(model_conf=conf)
    two = build(model_conf=conf | {"consistency_weight": 1.0}, **MASKS)
    two.load_state_dict(one.state_dict())
    two.specaug = None
    found = []
    for model in (one, two):
        model.teacher = Teacher()
        found.append(model(**ours)[1]["loss_teacher"].item())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"consistency_weight": 0.2}, "without specaug both views"),
        ({"interctc_vocab": "words"}, "expected all or phones"),
    ],
)
def test_switches_that_make_no_sense(conf, message):
    with pytest.raises(PowsmError, match=message):
        build(model_conf=conf)
