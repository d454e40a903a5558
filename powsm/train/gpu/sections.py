"""Which sections there are, in what order, and how long they may take together."""

import gc
import logging
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from powsm.model.kernels import choose_attention
from powsm.train.gpu import decoding, kernels, loop, steps
from powsm.train.gpu.material import Material

log = logging.getLogger(__name__)

BUDGET_S = 420.0  # after which no section begins; the longest takes about a minute

# what is seen first is what the others are read with
SECTIONS: dict[str, Callable[[Material, dict], dict]] = {
    "card": kernels.card,
    "attention": kernels.attention,
    "parity": kernels.parity,
    "ours": steps.ours,
    "stock": steps.stock,
    "compiled": steps.compiled,
    "trainer": loop.trainer,
    "search": decoding.search,
    "alignment": decoding.alignment,
}


def check_gpu(
    config: Path, *, is_tiny: bool = False, budget_s: float = BUDGET_S
) -> dict[str, dict]:
    """Figures of every section; one that fails says why, and the others go on.

    Args:
        config: training YAML of the model.
        is_tiny: a small model, on the CPU where there is no GPU.
        budget_s: seconds after which no section begins.

    Returns:
        By section its figures and `seconds`; `error` where it failed, `skipped` where
        the time was over.
    """
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    began = time.monotonic()
    choose_attention()
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        material = Material(config, device, Path(folder), is_tiny)
        for name, section in SECTIONS.items():
            start = time.monotonic()
            if start - began > budget_s:
                found[name] = {"skipped": f"{budget_s:.0f} s were over"}
                continue
            log.info("%s", name)
            try:
                found[name] = section(material, found)
            except Exception as err:  # whatever it is: the others are still wanted
                found[name] = {"error": f"{type(err).__name__}: {err}"[:500]}
                log.warning("%s: %s", name, traceback.format_exc())
            found[name]["seconds"] = round(time.monotonic() - start, 1)
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return found
