"""Parameters that stay as they are, by name."""

from collections.abc import Iterable

import torch

from powsm.train.memory import TrainingError


def freeze(model: torch.nn.Module, prefixes: Iterable[str]) -> None:
    """ESPnet's `freeze_param`: parameters of these names, or below them, stay.

    Raises:
        TrainingError: no parameter has one of the names.
    """
    for prefix in prefixes:
        frozen = [
            p
            for name, p in model.named_parameters()
            if name == prefix or name.startswith(prefix + ".")
        ]
        if not frozen:
            parts = " ".join(name for name, _ in model.named_children())
            raise TrainingError(
                f"freeze_param {prefix}: no parameter has that name; its parts: {parts}"
            )
        for p in frozen:
            p.requires_grad = False


def check_ctc_alone(model: torch.nn.Module) -> None:
    """Refuse to train CTC alone where only the decoder is to be trained.

    Raises:
        TrainingError: says so.
    """
    trained = (name for name, p in model.named_parameters() if p.requires_grad)
    if all(name.startswith("decoder.") for name in trained):
        raise TrainingError(
            "ctc_only_updates trains encoder and CTC head, which freeze_param or lora "
            "leave as they are; set it to 0"
        )
