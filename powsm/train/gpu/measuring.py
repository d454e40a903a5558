"""Time, memory, floating-point operations and waits of a piece of work on a device."""

import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one call, from an idle device to an idle device."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def median_ms(
    work: Callable[[], object], device: torch.device, n: int = 5, before: int = 2
) -> float:
    """Median milliseconds of `n` calls, after some that are not counted."""
    for _ in range(before):
        work()
    return float(np.median([seconds(work, device) for _ in range(n)]) * 1e3)


def n_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_gb(work: Callable[[], object], device: torch.device) -> float | None:
    """Most memory that tensors take, in GB; None on a CPU, which does not say."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2)


def waits(work: Callable[[], object], device: torch.device) -> dict[str, int] | None:
    """Where the host waits for a GPU, by CUDA's own report: `file:line` -> times."""
    if device.type != "cuda":
        work()
        return None
    found: Counter[str] = Counter()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for warning in told:
        if "synchroniz" in str(warning.message):
            found[f"{Path(warning.filename).name}:{warning.lineno}"] += 1
    return dict(found.most_common())


def kernels(work: Callable[[], object], device: torch.device) -> dict | None:
    """How many kernels the device runs, and the milliseconds in which it works."""
    if device.type != "cuda":
        return None
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        wait(device)
    rows = profile.key_averages()
    busy_ms = sum(row.self_device_time_total for row in rows) / 1e3
    return {"kernels": sum(row.count for row in rows), "busy_ms": round(busy_ms, 1)}
