"""Search and alignment on the card, beside ESPnet's own search and the CPU."""

from pathlib import Path

import numpy as np
import torch
import yaml
from espnet2.bin.s2t_inference import Speech2Text

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.decode.align import align
from powsm.decode.profile import SearchOptions
from powsm.decode.recogniser import Recogniser
from powsm.decode.search import Searcher
from powsm.tasks import NO_TIME_SYM
from powsm.train import config
from powsm.train.gpu.material import LANG, PHONES, Material
from powsm.train.gpu.measuring import peak_gb, seconds, waits
from powsm.vocabulary.tokenizer import Tokenizer

_SETTINGS = ((1, 0.0), (3, 0.0), (1, 0.3), (3, 0.3))  # beams and CTC weights
_WINDOWS = (8, 32, 96)  # utterances of a batch


def _peaked(material: Material) -> torch.nn.Module:
    """A model with random weights whose output is sure of itself and never ends."""
    model = material.model(is_stock=True).eval()
    with torch.no_grad():
        model.decoder.output_layer.weight *= 4
        model.decoder.output_layer.bias[[0, model.eos]] -= 1000
        model.ctc.ctc_lo.weight *= 4
        model.ctc.ctc_lo.bias[0] += 5
    return model


def search(material: Material, found: dict) -> dict:
    """Batches of ours against ESPnet's search, one by one: the same tokens?"""
    exp = material.folder / "peaked"
    exp.mkdir()
    model = _peaked(material)
    args = material.arguments()
    (exp / "config.yaml").write_text(yaml.safe_dump(config.stock_config(args)))
    torch.save(model.state_dict(), exp / "valid.model.pth")
    del model
    n_tokens, n = (4, 2) if material.is_tiny else (60, 4)
    rng = np.random.default_rng(0)
    speech = [
        rng.normal(0, 0.1, int(s * SAMPLE_RATE)).astype(np.float32)
        for s in np.linspace(1.0, 1.5 if material.is_tiny else 12.0, n)
    ]
    told = {}
    for beam, weight in _SETTINGS[-1:] if material.is_tiny else _SETTINGS:
        stock = Speech2Text(
            exp / "config.yaml",
            exp / "valid.model.pth",
            beam_size=beam,
            ctc_weight=weight,
            maxlenratio=-float(n_tokens),
            task_sym="<pr>",
            device=material.device.type,
        )
        options = SearchOptions(beam, weight, maxlenratio=-float(n_tokens))
        told[f"beam {beam}, ctc {weight}"] = _beside(stock, options, speech, material)
    if not material.is_tiny:
        told["batches"] = _by_batch(stock.s2t_model, material)
    return told


def _beside(stock: Speech2Text, options: SearchOptions, speech, material) -> dict:
    """Both on the same 20 s windows, as ESPnet's search has them."""
    model, device = stock.s2t_model, material.device
    n_samples = int(WINDOW_S * SAMPLE_RATE)
    padded = torch.zeros(len(speech), n_samples)
    for row, samples in zip(padded, speech, strict=True):
        row[: len(samples)] = torch.from_numpy(samples)
    prompts = [stock._build_hyp_primer(f"<{LANG}>")] * len(speech)
    searcher = Searcher(model, options)
    expected, got = [], []

    def theirs() -> None:
        expected[:] = [stock(x, lang_sym=f"<{LANG}>")[0][4] for x in speech]

    def ours() -> None:
        with torch.inference_mode():
            lengths = torch.full((len(speech),), n_samples)
            encoded = model.encode(padded.to(device), lengths.to(device))
        got[:] = [hyps[0] for hyps in searcher.search(*encoded, prompts)]

    ours()
    times = seconds(theirs, device), seconds(ours, device)
    equal = []
    for hyp, want in zip(got, expected, strict=True):
        ids = want.yseq.tolist()
        ids = ids[ids.index(model.sos) + len(prompts[0]) :]
        equal.append(hyp.tokens == tuple(i for i in ids if i != model.eos))
    return {
        "identical": sum(equal) / len(equal),
        "stock_s": round(times[0], 3),
        "ours_s": round(times[1], 3),
        "tokens": len(got[0].tokens),
    }


def _by_batch(model: torch.nn.Module, material: Material) -> dict:
    """A token's milliseconds, memory and waits, by windows of 20 s in a batch."""
    ids = {token: i for i, token in enumerate(model.token_list)}
    prompt = [model.sos, ids[f"<{LANG}>"], ids["<pr>"], ids[NO_TIME_SYM]]
    n_tokens, device = 60, material.device
    searcher = Searcher(model, SearchOptions(3, 0.3, maxlenratio=-float(n_tokens)))
    told = {}
    for n in _WINDOWS:
        memory = torch.randn(n, 499, model.encoder.output_size(), device=device)
        lens = torch.full((n,), 499, device=device)

        def work(memory=memory, lens=lens, n=n) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                searcher.search(memory, lens, [prompt] * n)

        work()
        found = waits(work, device)
        told[n] = {
            "ms_a_token": round(seconds(work, device) / n_tokens * 1e3, 2),
            "peak_gb": peak_gb(work, device),
            "waits_a_token": found and round(sum(found.values()) / n_tokens, 2),
        }
    return told


def alignment(material: Material, found: dict) -> dict:
    """Phones that are given, aligned here and on the CPU: the same times?"""
    model = _peaked(material)
    folder: Path = material.token_dir
    tokenizer = Tokenizer(folder / "bpe.model", folder / "tokens.txt")
    rng = np.random.default_rng(0)
    n = 1.5 if material.is_tiny else 12.0
    speech = torch.from_numpy(rng.normal(0, 0.1, int(n * SAMPLE_RATE))).float()
    phones = list(rng.choice(PHONES, int(5 * n)))
    both = []
    for device in (torch.device("cpu"), material.device):
        recogniser = Recogniser(model.to(device), tokenizer, device, "made up")
        both.append(align(recogniser, speech, phones))
    pairs = list(zip(*both, strict=True))
    moved = [max(abs(a.start - b.start), abs(a.end - b.end)) for a, b in pairs]
    return {"phones": len(pairs), "most_moved_s": round(max(moved), 3)}
