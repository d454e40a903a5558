"""Our search against stock ESPnet's on the same small model, weights and input."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from ctc_sums import BLANK, EOS, all_outputs, random_log_probs
from espnet2.bin.s2t_inference import Speech2Text
from espnet2.legacy.nets.e2e_asr_common import end_detect
from espnet2.tasks.s2t import S2TTask
from hypothesis import given
from hypothesis import strategies as st

from powsm.decode.beams import Beams, Hypothesis, Output
from powsm.decode.search import (
    BOUND_SLACK,
    Searcher,
    SearchOptions,
    language_log_probs,
)

WINDOW_S = 2.0
TOKENS = (
    ["<blank>", "<unk>", "<eng>", "<ita>", "<asr>", "<pr>", "<na>", "<notimestamps>"]
    + ["<0.00>", "<1.00>", "<2.00>"]
    + [f"/p{i}/" for i in range(30)]
    + ["<sos>", "<eos>", "<sop>"]
)
PROMPT = [TOKENS.index(t) for t in ("<sos>", "<eng>", "<pr>", "<notimestamps>")]
CONFIG = {
    "token_type": "word",
    "frontend_conf": {"fs": 16000, "n_fft": 512, "hop_length": 160, "n_mels": 20},
    "normalize": "utterance_mvn",
    "encoder": "e_branchformer",
    "encoder_conf": {
        "output_size": 32,
        "attention_heads": 2,
        "attention_layer_type": "selfattn",
        "pos_enc_layer_type": "abs_pos",
        "cgmlp_linear_units": 32,
        "cgmlp_conv_kernel": 7,
        "merge_conv_kernel": 7,
        "num_blocks": 1,
        "linear_units": 32,
    },
    "decoder": "transformer",
    "decoder_conf": {"attention_heads": 4, "linear_units": 64, "num_blocks": 2},
    "model_conf": {"ctc_weight": 0.3},
    "preprocessor": "s2t",
    "preprocessor_conf": {
        "text_prev_name": "text_prev",
        "text_ctc_name": "text_ctc",
        "fs": 16000,
        "speech_length": WINDOW_S,
        "notime_symbol": "<notimestamps>",
        "first_time_symbol": "<0.00>",
        "last_time_symbol": "<2.00>",
    },
}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A folder with config.yaml and model.pth of a small model.

    The weights are random but stretched, so that distributions are peaked, outputs
    depend on the audio and end after a handful to dozens of tokens.
    """
    folder = tmp_path_factory.mktemp("experiment")
    settings = folder / "settings.yaml"
    settings.write_text(yaml.safe_dump(CONFIG))
    parser = S2TTask.get_parser()
    args = parser.parse_args(["--config", str(settings), "--output_dir", str(folder)])
    args.token_list = TOKENS
    torch.manual_seed(0)
    model = S2TTask.build_model(args)
    with torch.no_grad():
        for layer in model.decoder.decoders:
            layer.src_attn.linear_q.weight *= 4
            layer.src_attn.linear_out.weight *= 4
        model.decoder.output_layer.weight *= 4
        model.decoder.output_layer.bias[model.eos] += 2
        model.ctc.ctc_lo.weight *= 4
        model.ctc.ctc_lo.bias[model.blank_id] += 5
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    torch.save(model.state_dict(), folder / "model.pth")
    return folder


def load_stock(experiment, options, dtype="float32"):
    return Speech2Text(
        experiment / "config.yaml",
        experiment / "model.pth",
        beam_size=options.beam_size,
        ctc_weight=options.ctc_weight,
        penalty=options.penalty,
        maxlenratio=options.maxlenratio,
        minlenratio=options.minlenratio,
        normalize_length=options.normalize_length,
        nbest=options.nbest,
        lang_sym="<eng>",
        task_sym="<pr>",
        dtype=dtype,
    )


@pytest.fixture(scope="module")
def model(experiment):
    return load_stock(experiment, SearchOptions()).s2t_model


@pytest.fixture(scope="module")
def encoded():
    """(B, T, D) generated encoder outputs, their lengths, and a prompt for each."""
    generator = torch.Generator().manual_seed(0)
    lens = torch.tensor([40, 12, 25, 1, 33, 18, 5])
    encoder_out = 3 * torch.randn(len(lens), 40, 32, generator=generator)
    sop = TOKENS.index("<sop>")
    prompts = [PROMPT, [sop, 12, 14, 16, *PROMPT], [sop, *range(11, 30), *PROMPT]]
    return encoder_out, lens, [prompts[b % 3] for b in range(len(lens))]


@pytest.fixture(scope="module")
def tones():
    """(4, 20 s) float32: melodies of one to two seconds, then silence."""
    rng = np.random.default_rng(0)
    speech = np.zeros((4, int(WINDOW_S * 16000)), dtype=np.float32)
    for row, n in zip(speech, (9000, 32000, 15000, 27000), strict=True):
        pitch = rng.uniform(100, 3000, size=n // 1000)
        phase = np.cumsum(np.repeat(pitch, 1000)) * 2 * np.pi / 16000
        row[: len(phase)] = 0.3 * np.sin(phase)
    return speech


def stock_search(stock, encoder_out, lens, prompts):
    """n-best lists of ESPnet's own search, one utterance at a time, no padding."""
    results = []
    for x, n, prompt in zip(encoder_out, lens, prompts, strict=True):
        stock.beam_search.set_hyp_primer(prompt)
        with torch.no_grad():
            hyps = stock.beam_search(
                x[:n], maxlenratio=stock.maxlenratio, minlenratio=stock.minlenratio
            )
        results.append([(*read(h, len(prompt)), h.scores) for h in hyps[: stock.nbest]])
    return results


def read(hyp, n_prompt):
    """Tokens without prompt and <eos> (stock adds a second one at the limit)."""
    eos = TOKENS.index("<eos>")
    return tuple(t for t in hyp.yseq.tolist()[n_prompt:] if t != eos), float(hyp.score)


def options_id(options):
    changed = {k: v for k, v in vars(options).items() if v != getattr(PLAIN, k)}
    return " ".join(f"{k}={v}" for k, v in changed.items()) or "plain"


PLAIN = SearchOptions()
SETTINGS = [
    PLAIN,
    SearchOptions(ctc_weight=0.3),
    SearchOptions(ctc_weight=0.3, maxlenratio=0.4),
    SearchOptions(ctc_weight=0.3, minlenratio=0.5, maxlenratio=-12),
    SearchOptions(beam_size=3, nbest=3),
    SearchOptions(beam_size=3, nbest=2, normalize_length=True, penalty=0.5),
    SearchOptions(beam_size=3, ctc_weight=0.3, nbest=3),
    SearchOptions(beam_size=3, ctc_weight=0.3, maxlenratio=0.4),
    SearchOptions(beam_size=5, ctc_weight=0.3, minlenratio=0.2),
    SearchOptions(beam_size=3, ctc_weight=1.0),
    SearchOptions(beam_size=30, ctc_weight=0.5),  # CTC scores the whole vocabulary
]


@pytest.mark.parametrize("options", SETTINGS, ids=options_id)
def test_search_equals_stock_at_true_lengths(experiment, encoded, options):
    stock = load_stock(experiment, options)
    expected = stock_search(stock, *encoded)
    got = Searcher(stock.s2t_model, options).search(*encoded)
    for wants, hyps in zip(expected, got, strict=True):
        assert [h.tokens for h in hyps] == [tokens for tokens, _, _ in wants]
        for hyp, (_, score, scores) in zip(hyps, wants, strict=True):
            assert hyp.score == pytest.approx(score, abs=1e-3)
            for name, value in hyp.scores.items():
                assert value == pytest.approx(float(scores[name]), abs=1e-3)


def test_search_by_ctc_alone_finds_the_likeliest_of_all_outputs():
    """In a beam that holds more than there are, none of which has a blank in it."""
    model = torch.nn.Linear(1, 1).eval()  # its parameters say on which device
    model.ctc, model.token_list = torch.nn.Identity(), ["<blank>", "a", "b", "<eos>"]
    model.blank_id, model.sos, model.eos = BLANK, EOS, EOS
    searcher = Searcher(model, SearchOptions(40, ctc_weight=1.0, maxlenratio=-9))
    for seed in range(10):
        log_probs, lens = random_log_probs(seed, 2), torch.tensor([5, 1 + seed % 4])
        found = searcher.search(log_probs, lens, [[EOS]] * 2)
        for x, n, (hyp,) in zip(log_probs, lens, found, strict=True):
            outputs = all_outputs(x[:n])
            assert outputs[hyp.tokens] == max(outputs.values())
            assert math.exp(hyp.score) == pytest.approx(outputs[hyp.tokens], rel=1e-4)


def test_settings_give_varied_outputs_that_end(model, encoded):
    # guards the tests above: a model that always runs to its limit shows nothing
    for options in (SearchOptions(ctc_weight=0.3), SearchOptions(beam_size=3)):
        hyps = [h[0].tokens for h in Searcher(model, options).search(*encoded)]
        assert len(set(hyps)) > len(hyps) // 2
        lens = encoded[1].tolist()
        assert sum(len(h) < n - 1 for h, n in zip(hyps, lens, strict=True)) >= 4


@pytest.mark.parametrize(
    ("options", "dtype", "tolerance"),
    [
        (SearchOptions(ctc_weight=0.3, maxlenratio=0.4), "float32", 1e-3),
        (SearchOptions(beam_size=3, ctc_weight=0.3), "float32", 1e-3),
        # single precision rounds, on a trained model stock's by up to 2e-3
        (SearchOptions(ctc_weight=0.3, maxlenratio=0.4), "float64", 1e-5),
    ],
)
def test_padded_window_equals_speech2text(experiment, tones, options, dtype, tolerance):
    stock = load_stock(experiment, options, dtype)
    speech, n_window = tones.astype(dtype), tones.shape[1]
    expected = [read(stock(wav)[0][4], len(PROMPT)) for wav in speech]
    with torch.no_grad():
        encoder_out, lens = stock.s2t_model.encode(
            torch.from_numpy(speech), torch.full((4,), n_window)
        )
    hyps = Searcher(stock.s2t_model, options).search(encoder_out, lens, [PROMPT] * 4)
    assert [h[0].tokens for h in hyps] == [tokens for tokens, _ in expected]
    for (hyp,), (_, score) in zip(hyps, expected, strict=True):
        assert hyp.score == pytest.approx(score, abs=tolerance)


@given(
    st.lists(
        st.lists(st.floats(-30, 0, allow_subnormal=False), max_size=2),
        min_size=4,
        max_size=8,
    )
)
def test_search_stops_where_stock_detects_the_end(scores):
    """Scores of what ended in each step, of a beam that goes on."""
    output, ended = Output(99, 0, 1, detects_end=True), []
    goes_on = Output(99, 0, 1, detects_end=False)  # as with a maxlenratio
    for step, its_scores in enumerate(scores):
        for score in its_scores:
            output.add(step, Hypothesis((), score, {}))
            goes_on.add(step, Hypothesis((), score, {}))
            ended.append({"yseq": [0] * (step + 2), "score": score})
        output.finish_step(step, n_alive=1)
        goes_on.finish_step(step, n_alive=1)
        assert output.is_done == end_detect(ended, step) and not goes_on.is_done


@pytest.mark.parametrize(("score", "best"), [(-7.99, (2,)), (-8.01, (1,))])
def test_normalised_length_is_of_prompt_and_output_less_one(score, best):
    """As stock counts: -4 over 4 + 1 - 1 tokens against -8 over 4 + 5 - 1."""
    output = Output(9, 0, 4, detects_end=False)
    output.add(0, Hypothesis((1,), -4.0, {}))
    output.add(4, Hypothesis((2,), score, {}))
    assert output.best(1, normalize_length=True)[0].tokens == best


@pytest.mark.parametrize(
    "options", [PLAIN, SearchOptions(beam_size=3, ctc_weight=0.3)], ids=options_id
)
def test_batch_equals_one_by_one(model, encoded, options):
    searcher = Searcher(model, options)
    encoder_out, lens, prompts = encoded
    batch = searcher.search(*encoded)
    for b, n in enumerate(lens):
        (alone,) = searcher.search(encoder_out[b : b + 1, :n], n[None], [prompts[b]])
        assert alone[0].tokens == batch[b][0].tokens
        assert alone[0].score == pytest.approx(batch[b][0].score, abs=1e-4)


def test_shapes_of_a_step_repeat(model, encoded, monkeypatch):
    attend, shapes = torch.nn.functional.scaled_dot_product_attention, Counter()

    def seen(query, keys, *rest):
        shapes[query.size(2), keys.size(2)] += 1
        return attend(query, keys, *rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    bias = model.decoder.output_layer.bias
    monkeypatch.setattr(bias, "data", bias.data.clone())
    bias.data[model.eos] -= 1000  # never ends by itself
    options = SearchOptions(maxlenratio=-70)
    Searcher(model, options).search(encoded[0][:1], encoded[1][:1], [PROMPT])
    own = {keys: n for (rows, keys), n in shapes.items() if rows == 1 and keys != 40}
    # 69 tokens after the prompt of 4, in a cache of 64 and then of 128 places, 2 layers
    assert own == {64: 2 * 60, 128: 2 * 9}


def test_padding_frames_are_never_read(model, encoded):
    searcher = Searcher(model, SearchOptions(beam_size=2, ctc_weight=0.3))
    encoder_out, lens, prompts = encoded
    frame = torch.arange(encoder_out.size(1))
    padding = (frame >= lens.unsqueeze(1)).unsqueeze(-1)
    other = encoder_out.masked_fill(padding, 1e4)
    expected = searcher.search(encoder_out, lens, prompts)
    assert searcher.search(other, lens, prompts) == expected


def test_time_symbols_are_never_chosen(model, encoded):
    times = [TOKENS.index(t) for t in ("<0.00>", "<1.00>", "<2.00>")]
    bias = model.decoder.output_layer.bias
    before = bias.detach().clone()
    try:
        with torch.no_grad():
            bias[times] += 100
        for options in (PLAIN, SearchOptions(beam_size=3, ctc_weight=0.3)):
            for (hyp,) in Searcher(model, options).search(*encoded):
                assert not set(hyp.tokens) & set(times)
    finally:
        bias.data.copy_(before)


def longest_run(tokens, period):
    """How often a stretch of `period` tokens occurs in a row, at most."""
    best = 1
    for start in range(len(tokens)):
        stretch, n = tokens[start : start + period], 1
        while tokens[start + n * period : start + (n + 1) * period] == stretch:
            n += 1
        best = max(best, n)
    return best


@pytest.mark.parametrize("beam_size", [1, 3])
def test_repetition_guard_bounds_every_run(model, encoded, beam_size):
    bias = model.decoder.output_layer.bias
    before = bias.detach().clone()
    try:
        with torch.no_grad():  # a decoder that says the same phone for ever
            bias[TOKENS.index("/p1/")] += 200
        # <eos> is never barred, so only the limit ends it
        free = SearchOptions(beam_size=beam_size, maxlenratio=-20)
        guarded = SearchOptions(
            beam_size=beam_size, maxlenratio=-20, repetition_guard=3
        )
        for (hyp,) in Searcher(model, free).search(*encoded):
            assert longest_run(hyp.tokens, 1) > 3
        for (hyp,) in Searcher(model, guarded).search(*encoded):
            # 3 of the one phone, something else, 3 of it, ...
            assert max(longest_run(hyp.tokens, p) for p in range(1, 9)) <= 3
    finally:
        bias.data.copy_(before)


@pytest.mark.parametrize("period", range(1, 11))
def test_repetition_guard_knows_stretches_of_up_to_eight(model, period):
    """The stretch was said twice, and but for a token a third time."""
    searcher = Searcher(model, SearchOptions(repetition_guard=2))
    said = [*range(11, 11 + period)] * 3
    beams = Beams(torch.tensor([[said[:-1]]]), *[torch.zeros(1, 1)] * 2, {})
    barred = searcher._barred(beams)
    ruled_out = set() if barred is None else set(barred.flatten().tolist())
    assert ruled_out - {model.blank_id} == ({said[-1]} if period <= 8 else set())


def test_repetition_guard_leaves_other_outputs_alone(model, encoded):
    free = Searcher(model, SearchOptions(ctc_weight=0.3)).search(*encoded)
    guarded = SearchOptions(ctc_weight=0.3, repetition_guard=40)
    assert Searcher(model, guarded).search(*encoded) == free


def test_a_search_detects_its_end_where_no_length_is_given(model, encoded, monkeypatch):
    extend, steps = Searcher._extend, []

    def counted(self, *args):
        steps.append(1)
        return extend(self, *args)

    monkeypatch.setattr(Searcher, "_extend", counted)
    bias = model.decoder.output_layer.bias
    monkeypatch.setattr(bias, "data", bias.data.clone())
    bias.data[model.eos] += 20  # what goes on is soon far behind what ended
    Searcher(model, SearchOptions(beam_size=3)).search(*encoded)
    n_steps = len(steps)
    Searcher(model, SearchOptions(beam_size=3, maxlenratio=1.0)).search(*encoded)
    assert n_steps < len(steps) - n_steps == encoded[1].max()


@pytest.mark.parametrize("beam_size", [1, 30])  # 30: a table of the whole vocabulary
def test_ctc_length_bound_cuts_at_labels_times_ratio(model, encoded, beam_size):
    encoder_out, lens, prompts = encoded
    options = SearchOptions(beam_size, maxlenratio=-100, ctc_length_bound=0.5)
    path = model.ctc.argmax(encoder_out)
    bias = model.decoder.output_layer.bias
    before = bias.detach().clone()
    try:
        with torch.no_grad():
            bias[model.eos] -= 1000  # never ends by itself
        hyps = Searcher(model, options).search(*encoded)
    finally:
        bias.data.copy_(before)
    for (hyp,), row, n in zip(hyps, path.tolist(), lens.tolist(), strict=True):
        labels = [
            s for s, last in zip(row[:n], [0, *row], strict=False) if s not in (0, last)
        ]
        assert len(hyp.tokens) == int(0.5 * len(labels)) + BOUND_SLACK


@pytest.mark.parametrize(
    "options", [PLAIN, SearchOptions(beam_size=3, ctc_weight=0.3)], ids=options_id
)
def test_barred_tokens_never_come_out(model, encoded, options):
    free = Searcher(model, options).search(*encoded)
    said = sorted({token for (hyp,) in free for token in hyp.tokens})
    barred = said[::2]
    found = Searcher(model, options, barred).search(*encoded)
    assert not {token for (hyp,) in found for token in hyp.tokens} & set(barred)
    for (before,), (after,) in zip(free, found, strict=True):
        if not set(before.tokens) & set(barred) and options.beam_size == 1:
            assert after == before


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
def test_barred_tokens_do_not_fill_a_beam_larger_than_what_is_left(
    model, encoded, ctc_weight
):
    kept = {TOKENS.index("<eos>"), TOKENS.index("/p1/"), model.blank_id}
    barred = [token for token in range(len(TOKENS)) if token not in kept]
    options = SearchOptions(10, ctc_weight, maxlenratio=-4, nbest=10)
    for hyps in Searcher(model, options, barred).search(*encoded):
        assert hyps and {token for hyp in hyps for token in hyp.tokens} <= kept


def test_minimum_length_out_of_reach_returns_nothing(model, encoded):
    # a constant minimum is not lowered, in stock either
    options = SearchOptions(maxlenratio=-5, minlenratio=-6)
    assert all(not hyps for hyps in Searcher(model, options).search(*encoded))


def test_language_log_probs_equal_decoder_scores(model, encoded):
    encoder_out, lens, _ = encoded
    langs = [TOKENS.index("<eng>"), TOKENS.index("<ita>"), TOKENS.index("<unk>")]
    got = language_log_probs(model, encoder_out, lens, langs)
    assert got.shape == (7, 3)
    for row, x, n in zip(got, encoder_out, lens, strict=True):
        with torch.no_grad():
            want, _ = model.decoder.score(torch.tensor([model.sos]), None, x[:n])
        assert torch.allclose(row, want[langs], atol=1e-5)


def test_bfloat16_scores_stay_close(experiment, encoded):
    options = SearchOptions(beam_size=3, ctc_weight=0.3)
    model = load_stock(experiment, options).s2t_model
    full = Searcher(model, options).search(*encoded)
    model.bfloat16()
    encoder_out, lens, prompts = encoded
    half = Searcher(model, options).search(encoder_out.bfloat16(), lens, prompts)
    for (a,), (b,) in zip(full, half, strict=True):
        assert math.isfinite(b.score)
        if a.tokens == b.tokens:  # 8 bits of mantissa: a per cent or two
            assert b.score == pytest.approx(a.score, rel=0.05, abs=0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu(model, encoded):
    options = SearchOptions(beam_size=3, ctc_weight=0.3)
    encoder_out, lens, prompts = encoded
    expected = Searcher(model, options).search(*encoded)
    try:
        got = Searcher(model.cuda(), options).search(encoder_out.cuda(), lens, prompts)
    finally:
        model.cpu()
    assert [h[0].tokens for h in got] == [h[0].tokens for h in expected]


def test_options_report_all_faults():
    with pytest.raises(ValueError, match=r"beam_size is 0; .*; ctc_weight is 2"):
        SearchOptions(beam_size=0, ctc_weight=2)


@pytest.mark.parametrize(
    ("lens", "prompt", "message"),
    [
        ([0], PROMPT, "utterance 0 of the batch: 0 encoder frames"),
        ([41], PROMPT, "utterance 0 of the batch: 41 encoder frames"),
        ([9], PROMPT[:-1], "prompt 0 of the batch: .*time stamps is not supported"),
        ([9], PROMPT[1:], "lacks <sos>"),
        ([9, 9], PROMPT, "got 1 encoder outputs, 2 lengths and 1 prompts"),
    ],
)
def test_search_refuses_a_bad_batch(model, encoded, lens, prompt, message):
    searcher = Searcher(model, PLAIN)
    with pytest.raises(ValueError, match=message):
        searcher.search(encoded[0][:1], torch.tensor(lens), [prompt])


def test_searcher_refuses_what_it_cannot_search(model):
    fake = SimpleNamespace(ctc=None, decoder=model.decoder, training=True)
    with pytest.raises(ValueError, match="call model.eval"):
        Searcher(fake, PLAIN)
    fake.training = False
    with pytest.raises(ValueError, match="the model has no CTC"):
        Searcher(fake, SearchOptions(ctc_weight=0.3))
    fake.decoder = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="the decoder is Linear; expected Transformer"):
        Searcher(fake, PLAIN)
