"""A training step of ours and of ESPnet's model, by seconds of audio in a batch."""

import gc
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.train.gpu import measuring
from powsm.train.gpu.material import Material

# seconds of a batch, and of each recording in it
_BATCHES = ((67, 7.4), (268, 7.4), (536, 7.4), (536, 20.0))
_STOCK_ROWS = 16  # of the published run on each of four cards


def ours(material: Material, found: dict) -> dict:
    """Milliseconds, examples a second, share of the card, memory and waits of ours."""
    model = material.model().to(material.device).train()
    told = {}
    for total, each in ((4, 1.0),) if material.is_tiny else _BATCHES:
        n = int(total // each)
        seconds = [each * (1 - 0.004 * (i % 5)) for i in range(n)]
        batch = material.batch(model, seconds).to(material.device)
        name = f"{total} s of {each:g} s"
        try:
            told[name] = _figures(model, batch.arguments(), material, found)
        except torch.OutOfMemoryError:
            told[name] = {"fits": False}
        model.zero_grad(set_to_none=True)
        gc.collect()
    return told


def stock(material: Material, found: dict) -> dict:
    """The same of ESPnet's model: 16 rows, an example each, padded to 20 s."""
    model = material.model(is_stock=True).to(material.device).train()
    seconds = [1.0] if material.is_tiny else [7.4] * (_STOCK_ROWS // 4)
    rows = material.batch(model, seconds).row_for_each_example().tensors()
    rows.pop("example_audio")
    if not material.is_tiny:
        n_samples = int(WINDOW_S * SAMPLE_RATE)
        rows["speech"] = F.pad(rows["speech"], (0, n_samples - rows["speech"].size(1)))
        rows["speech_lengths"] = torch.full_like(rows["speech_lengths"], n_samples)
    rows = {name: x.to(material.device) for name, x in rows.items()}
    return _figures(model, rows, material, found)


def _figures(
    model: torch.nn.Module, inputs: Mapping, material: Material, found: dict
) -> dict:
    device = material.device
    is_half = device.type == "cuda"

    def step() -> None:
        with torch.autocast(
            device.type, torch.bfloat16, enabled=is_half, cache_enabled=False
        ):
            loss = model(**inputs)[0]
        loss.backward()

    n = 1 if material.is_tiny else 5
    ms = measuring.median_ms(step, device, n=n, before=min(n, 2))
    tflop = measuring.n_flops(step) / 1e12
    told = {
        "ms": round(ms, 1),
        "examples_s": round(len(inputs["text"]) / ms * 1e3, 1),
        "tflop": round(tflop, 4),
        "peak_gb": measuring.peak_gb(step, device),
        "waits": measuring.waits(step, device),
        "run": measuring.kernels(step, device),
    }
    if best := found.get("card", {}).get("bfloat16_tflops"):
        # of what the card's largest product reaches, not of its data sheet
        told["share_of_card"] = round(tflop / ms * 1e3 / best, 3)
    return told
