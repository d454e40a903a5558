"""The trainer itself: updates, an end of memory, and going on from a checkpoint."""

import json
import logging
import time

import torch

from powsm.train.gpu.material import Material
from powsm.train.run import train_experiment

_UPDATES = 15  # of each of the two epochs
_SHARE = 0.6  # of the memory that the first epoch took is left to the second


class _Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def trainer(material: Material, found: dict) -> dict:
    """Two epochs of 15 updates by the command's own function.

    The second goes on from the first one's checkpoint, on a GPU with so little memory
    that batches have to be taken in halves.
    """
    is_cuda = material.device.type == "cuda"
    n_updates = 2 if material.is_tiny else _UPDATES
    dump = material.dump(*((6, 2) if material.is_tiny else (600, 24)))
    told: dict = {}
    logger = logging.getLogger("powsm")
    lines = _Lines()
    logger.addHandler(lines)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        for epoch in (1, 2):
            if is_cuda:
                torch.cuda.empty_cache()
                if epoch == 2:
                    _leave(material.device, told["epoch 1"]["peak_gb"] * _SHARE)
                torch.cuda.reset_peak_memory_stats(material.device)
            lines.lines.clear()
            told[f"epoch {epoch}"] = _epoch(material, dump, epoch, n_updates)
            told[f"epoch {epoch}"] |= {
                "batches_in_parts": sum("out of memory at" in x for x in lines.lines),
                "lines": [x for x in lines.lines if "of audio a second" in x][-2:],
            }
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
        if is_cuda:
            torch.cuda.set_per_process_memory_fraction(1.0, material.device)
    history = (material.folder / "exp/history.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in history]
    told["updates"] = [row["updates"] for row in rows]
    told["losses"] = [round(row["train_loss"], 3) for row in rows]
    return told


def _epoch(material: Material, dump, epoch: int, n_updates: int) -> dict:
    is_cuda = material.device.type == "cuda"
    settings = material.settings(
        ngpu=int(is_cuda), max_epoch=epoch, num_iters_per_epoch=n_updates
    )
    settings |= {"log_interval": 5, "checkpoint_every_n_updates": 10}
    settings["batch_conf"] = {"batch_seconds": 3 if material.is_tiny else 134}
    settings["batch_conf"] |= {"update_batches": 2}
    start = time.perf_counter()
    train_experiment(
        settings,
        train_folder=dump / "train",
        valid_folder=dump / "dev",
        token_dir=material.token_dir,
        stats=material.stats,
        exp=material.folder / "exp",
    )
    told: dict = {"s": round(time.perf_counter() - start, 1)}
    if is_cuda:
        peak = torch.cuda.max_memory_allocated(material.device)
        told["peak_gb"] = round(peak / 1e9, 2)
    return told


def _leave(device: torch.device, gb: float) -> None:
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gb * 1e9 / total), device)
