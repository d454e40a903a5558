"""A training step of ours, compiled or not, and of ESPnet's model."""

import gc
import time
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.model.kernels import compile_layers
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
            inputs = batch.arguments()
            figures = _figures(model, inputs, material)
            told[name] = _with_share(figures, model, inputs, material, found)
        except torch.OutOfMemoryError:
            told[name] = {"fits": False}
        model.zero_grad(set_to_none=True)
        gc.collect()
    return told


def compiled(material: Material, found: dict) -> dict:
    """Ours with compiled layers, which take their minutes first; or why it fails."""
    model = material.model().to(material.device).train()
    seconds = [1.0] * 4 if material.is_tiny else [7.4] * 36
    batch = material.batch(model, seconds).to(material.device)
    inputs = batch.arguments()
    start = time.monotonic()
    fault = compile_layers(
        model,
        lambda: _step(model, inputs, material.device),
        backend="eager" if material.is_tiny else "inductor",  # in seconds
    )
    if fault is not None:
        return {"fault": fault}
    took = round(time.monotonic() - start, 1)
    return {"compile_s": took} | _figures(model, inputs, material)


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
    return _with_share(_figures(model, rows, material), model, rows, material, found)


def _step(model: torch.nn.Module, inputs: Mapping, device: torch.device) -> None:
    is_half = device.type == "cuda"
    with torch.autocast(
        device.type, torch.bfloat16, enabled=is_half, cache_enabled=False
    ):
        loss = model(**inputs)[0]
    loss.backward()


def _figures(model: torch.nn.Module, inputs: Mapping, material: Material) -> dict:
    device = material.device
    n = 1 if material.is_tiny else 5

    def step() -> None:
        _step(model, inputs, device)

    ms = measuring.median_ms(step, device, n=n, before=min(n, 2))
    return {
        "ms": round(ms, 1),
        "examples_s": round(len(inputs["text"]) / ms * 1e3, 1),
        "peak_gb": measuring.peak_gb(step, device),
        "waits": measuring.waits(step, device),
        "run": measuring.kernels(step, device),
    }


def _with_share(
    told: dict, model: torch.nn.Module, inputs: Mapping, material: Material, found: dict
) -> dict:
    """Figures, and how much of what the card's largest product reached they are."""
    flops = measuring.n_flops(lambda: _step(model, inputs, material.device))
    told |= {"tflop": round(flops / 1e12, 4)}
    if best := found.get("card", {}).get("bfloat16_tflops"):
        told["share_of_card"] = round(flops / 1e9 / told["ms"] / best, 3)
    return told
