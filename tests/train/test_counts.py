"""What a step of the published model asks of a GPU: one more wait or table fails here.

The figures are those of the code as it is, and may fall; what raises them should be
worth it, and is then written here.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from counting import Counting, Counts, on_device

from powsm.decode.profile import SearchOptions
from powsm.decode.recogniser import bytes_a_second
from powsm.decode.search import Searcher
from powsm.model.batch import Batch
from powsm.model.build import build
from powsm.model.losses import smoothed_cross_entropy
from powsm.settings import load_with_base
from powsm.vocabulary.symbols import phone_symbols, special_symbols

ROOT = Path(__file__).parents[2]
SLACK = 1.03
N_TOKENS = 40_002
PHONES_PER_S, PIECES_PER_S = 10.8, 3.5


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """conf/train_powsm_fast.yaml with made-up tokens and statistics."""
    tokens = ["<blank>", "<unk>", *special_symbols(), *phone_symbols()]
    tokens += [f"piece{i}" for i in range(N_TOKENS - 3 - len(tokens))]
    stats = tmp_path_factory.mktemp("stats") / "stats.npz"
    np.savez(stats, count=200, sum=np.ones(80) * 10, sum_square=np.ones(80) * 400)
    conf = load_with_base(ROOT / "conf/train_powsm_fast.yaml")
    return conf | {
        "token_list": [*tokens, "<sos>", "<eos>", "<sop>"],
        "normalize_conf": {"stats_file": str(stats)},
        "frontend": "default",
        "ctc_conf": {},
        "init": None,
    }


def model_of(settings: dict) -> torch.nn.Module:
    with torch.device("meta"):
        model = build(settings)
    for module in model.modules():
        if getattr(module, "pe", None) is not None:  # positions as numbers again
            module.pe = None
            module.extend_pe(torch.zeros(1, 5000))
    return model


def batch_of(model: torch.nn.Module, seconds: list[float]) -> Batch:
    """Recordings with four examples each, of rows with the tasks' usual lengths."""
    rng = np.random.default_rng(0)
    ids = {token: i for i, token in enumerate(model.token_list)}
    spoken = [i for t, i in ids.items() if t.startswith("/") and len(t) > 2]
    rows: dict[str, list] = {"text": [], "text_prev": [], "text_ctc": []}
    for duration in seconds:
        phones = list(rng.choice(spoken, int(PHONES_PER_S * duration)))
        pieces = list(rng.integers(20_000, 39_000, int(PIECES_PER_S * duration)))
        rows["text_ctc"].append(phones)
        for task, text, prompt in (
            ("asr", pieces, [ids["<na>"]]),
            ("pr", phones, [ids["<na>"]]),
            ("g2p", phones, pieces),
            ("p2g", pieces, phones),
        ):
            start = [ids["<eng>"], ids[f"<{task}>"], ids["<notimestamps>"]]
            rows["text"].append(start + text)
            rows["text_prev"].append(prompt)
    tensors = {}
    for name, values in rows.items():
        tensors[name] = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(v) for v in values], batch_first=True, padding_value=-1
        )
        tensors[f"{name}_lengths"] = torch.tensor([len(v) for v in values])
    samples = torch.tensor([int(s * 16_000) for s in seconds])
    return Batch(
        speech=torch.zeros(len(seconds), int(samples.max())),
        speech_lengths=samples,
        example_audio=torch.arange(len(seconds)).repeat_interleave(4),
        **tensors,
    )


def step(settings: dict) -> Counts:
    """Forward and backward of an update in one batch: 72 recordings of 7.4 s."""
    model = model_of(settings).train()
    with Counting() as counts:
        on_device(model, counts)
        batch = batch_of(model, [7.4 - 0.03 * (i % 5) for i in range(72)])
        layout = model.layout_maker(batch).each(lambda x: on_device(x, counts))
        held = {k: on_device(x, counts) for k, x in batch.tensors().items()}
        loss, _, _ = model(**held, layout=layout)
        loss.backward()
    return counts


def tokens(settings: dict, n: int) -> Counts:
    """A search for `n` tokens over five windows of 20 s, beam 3 and CTC 0.3."""
    model = model_of(settings).eval()
    with Counting() as counts, torch.inference_mode():
        on_device(model, counts)
        ids = {token: i for i, token in enumerate(model.token_list)}
        prompt = [model.sos, ids["<eng>"], ids["<pr>"], ids["<notimestamps>"]]
        options = SearchOptions(beam_size=3, ctc_weight=0.3, maxlenratio=-float(n))
        memory = on_device(torch.zeros(5, 499, 768), counts)
        lens = on_device(torch.full((5,), 499), counts)
        Searcher(model, options).search(memory, lens, [prompt] * 5)
    return counts


def encoding(settings: dict) -> tuple[torch.nn.Module, Counts, int]:
    """Five windows of 20 s encoded; the model, counts, and what the weights hold."""
    model = model_of(settings).eval()
    with Counting() as counts, torch.inference_mode():
        on_device(model, counts)
        weights = counts.live
        speech = on_device(torch.zeros(5, 320_000), counts)
        model.encode(speech, on_device(torch.full((5,), 320_000), counts))
    return model, counts, weights


def test_operators_bytes_memory_and_waits_of_a_product():
    with Counting() as counts:
        a = on_device(torch.zeros(2, 3), counts)
        b = on_device(torch.zeros(3, 4), counts)
        product = a @ b
        assert (counts.operators, counts.bytes) == (1, 4 * (6 + 12 + 8))
        total = product.sum()
        assert (counts.operators, counts.live) == (2, 4 * (6 + 12 + 8 + 1))
        del product
        assert (counts.live, counts.peak) == (4 * (6 + 12 + 1), 4 * (6 + 12 + 8 + 1))
        assert not counts.waits
        float(total)
        a[on_device(torch.tensor([True, False]), counts)]
        on_device(torch.tensor([3, 4]), counts).tolist()
        assert counts.waits.total() == 3


@pytest.mark.parametrize("chunked", [True, False])
def test_a_table_of_scores_is_seen(chunked):
    """1,000 tokens over 2,000 symbols: 8 MB of scores, as much of probabilities."""
    with Counting() as counts:
        layer = on_device(torch.nn.Linear(16, 2000), counts)
        hidden = on_device(torch.zeros(1000, 16), counts)
        target = on_device(torch.zeros(1000, dtype=torch.long), counts)
        if chunked:
            loss = smoothed_cross_entropy(hidden, layer, target, 0.1, cells=100_000)[0]
        else:
            loss = F.cross_entropy(layer(hidden), target, label_smoothing=0.1)
        loss.backward()
    assert (counts.peak < 4e6) == chunked


def test_a_training_step(settings):
    """The six waits are CTC's: PyTorch's kernel copies offsets and both lengths."""
    counts = step(settings)
    assert counts.waits.total() == 6, counts.waits
    assert counts.operators <= SLACK * 2_215
    assert counts.bytes <= SLACK * 495.2e9
    assert counts.peak <= SLACK * 49.14e9


def test_a_token_of_a_search(settings):
    """Of five windows, beyond what encoding, prompts and the last token ask for."""
    few, more = tokens(settings, 3), tokens(settings, 7)
    waits = more.waits - few.waits
    assert waits.total() / 4 == 1, waits
    assert (more.operators - few.operators) / 4 <= SLACK * 292
    assert (more.bytes - few.bytes) / 4 <= SLACK * 0.807e9
    assert more.peak <= SLACK * 2.2e9


def test_a_second_of_decoding_takes_no_more_than_is_planned_for(settings):
    model, counts, weights = encoding(settings)
    planned = 100 * bytes_a_second(model, n_hyps=3)
    assert planned / 4 < counts.peak - weights < planned / 2
    assert tokens(settings, 3).peak - weights < planned / 2
