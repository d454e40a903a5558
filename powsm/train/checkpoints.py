"""Checkpoints to resume from: written whole or not at all, and found again."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from powsm.files.whole import atomic_write


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written beside their place and renamed into it.

    Lightning itself writes to the system's temporary folder and moves the file. From
    one file system to another, as to a cluster's scratch disk, such a move is a copy,
    and a kill in its middle leaves half a checkpoint under the newest name.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        save_whole(checkpoint, Path(path))


def save_whole(state: dict[str, Any], path: Path) -> None:
    """`torch.save` that leaves the old file or the new one, nothing between."""
    with atomic_write(path, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as err:
            if isinstance(err.__context__, OSError):  # which torch talks over
                raise err.__context__ from None
            raise


def newest_checkpoint(exp: Path) -> Path | None:
    """The checkpoint with the most updates, or None before the first."""
    checkpoints = sorted((exp / "checkpoints").glob("step*.ckpt"))
    return checkpoints[-1] if checkpoints else None


def remove_broken_off(exp: Path) -> None:
    """Remove what kills in the middle of writing left behind."""
    for path in [*(exp / "checkpoints").glob(".step*"), *exp.glob(".*epoch.pth.*")]:
        path.unlink(missing_ok=True)
