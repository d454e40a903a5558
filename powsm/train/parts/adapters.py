"""LoRA: small matrices beside layers of a trained model, trained alone.

With them go the rows of the tokens that a vocabulary was extended by; everything else
stays as it was, to the bit. What is written for others is merged: the weights of the
plain network, which load without all this.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Self

import torch
from torch.nn.utils import parametrize

from powsm.model.ctc_heads import PhoneLinear
from powsm.model.find import CheckpointError
from powsm.model.start_from import TOKEN_AXIS
from powsm.settings import ConfigError, type_faults, unknown_keys

log = logging.getLogger(__name__)

_LIBRARY = "loralib"


@dataclass(frozen=True)
class Lora:
    """`lora:` of a training configuration.

    Args:
        rank: of the product of two matrices that is added to each weight.
        alpha: the product counts `alpha / rank` times.
        target_modules: ends of the names of the linear layers that get one.
    """

    rank: int = 8
    alpha: int = 16
    target_modules: Sequence[str] = ("linear_q", "linear_k", "linear_v", "linear_out")

    @classmethod
    def of(cls, conf: Mapping | None) -> Self | None:
        """From YAML; None where it asks for nothing.

        Raises:
            ConfigError: lists all faults.
        """
        if not conf:
            return None
        if told := faults(conf):
            raise ConfigError("; ".join(told))
        return cls(**conf)


def faults(conf: Mapping) -> list[str]:
    """Everything that is wrong with `lora:`, by key."""
    told = unknown_keys("lora", conf, Lora.__dataclass_fields__)
    told += [f"lora.{fault}" for fault in type_faults(Lora, conf)]
    if told:
        return told
    lora = Lora(**conf)
    for name in ("rank", "alpha"):
        if getattr(lora, name) < 1:
            told.append(f"lora.{name}: {getattr(lora, name)}, expected 1 or more")
    if not lora.target_modules or not all(
        isinstance(name, str) and name for name in lora.target_modules
    ):
        told.append("lora.target_modules: expected names of layers, such as linear_q")
    if find_spec(_LIBRARY) is None:
        told.append(f"lora: {_LIBRARY} is not installed: pip install 'powsm[lora]'")
    return told


class LowRank(torch.nn.Module):
    """A weight with an adapter, for layers whose weight is read and not only applied.

    The library's own layer adds the adapter to what the layer says, which losses that
    read rows of the weight do not see.

    Args:
        weight: (n_out, n_in) that it is made of; see `torch.nn.utils.parametrize`.
        lora: rank and scale.
    """

    def __init__(self, weight: torch.Tensor, lora: Lora):
        super().__init__()
        n_out, n_in = weight.shape
        self.lora_A = torch.nn.Parameter(weight.new_empty(lora.rank, n_in))
        self.lora_B = torch.nn.Parameter(weight.new_zeros(n_out, lora.rank))
        torch.nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as the library
        self._scale = lora.alpha / lora.rank

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight and the product of both matrices."""
        return weight + self._scale * (self.lora_B @ self.lora_A)


class NewRows(torch.nn.Module):
    """A parameter of which some rows are trained, and the others stay.

    Args:
        parameter: that it is made of; see `torch.nn.utils.parametrize`.
        rows: their numbers.
        axis: along which they are counted.
    """

    def __init__(self, parameter: torch.Tensor, rows: Sequence[int], axis: int):
        super().__init__()
        self._axis = axis
        self.register_buffer("_rows", torch.tensor(rows), persistent=False)
        chosen = parameter.detach().index_select(axis, self._rows)
        self.new = torch.nn.Parameter(chosen.clone())

    def forward(self, parameter: torch.Tensor) -> torch.Tensor:
        """The whole parameter, the trained rows in their places."""
        return parameter.index_copy(self._axis, self._rows, self.new)


def add_adapters(
    model: torch.nn.Module, lora: Lora, new_tokens: Sequence[str] = ()
) -> None:
    """Freeze a model, but for adapters and the rows of new tokens, which are added.

    What it computes stays the same: an adapter begins with a product of zero.

    Args:
        model: an S2T model with its weights in place.
        new_tokens: that its vocabulary was extended by.

    Raises:
        CheckpointError: a name of `target_modules` is that of no linear layer.
    """
    from espnet2.layers.create_adapter_fn import create_lora_adapter
    from loralib import LoRALayer, mark_only_lora_as_trainable

    _check_targets(model, lora.target_modules)
    was_training = model.training
    ends = tuple(lora.target_modules)
    chosen = [name for name, _ in model.named_modules() if name.endswith(ends)]
    read = {name.rpartition(".")[0] for name in TOKEN_AXIS}.intersection(chosen)
    if others := [name for name in chosen if name not in read]:
        create_lora_adapter(model, lora.rank, lora.alpha, target_modules=others)
    for name in sorted(read):
        head = model.get_submodule(name)
        parametrize.register_parametrization(head, "weight", LowRank(head.weight, lora))
    for module in model.modules():
        if isinstance(module, LoRALayer):
            # the library's own merging at each validation would round the weights
            module.merge_weights = module.merged = False
    model.train(was_training)
    mark_only_lora_as_trainable(model)
    numbers = sorted(model.token_list.index(token) for token in new_tokens)
    for name, axis in TOKEN_AXIS.items():
        place, _, parameter = name.rpartition(".")
        try:
            module = model.get_submodule(place)
        except AttributeError:  # a model without a decoder, or without conditioning
            continue
        own = numbers
        if isinstance(module, PhoneLinear):  # of these tokens, those that it speaks
            kept = module.columns.kept.tolist()
            own = [kept.index(number) for number in numbers if number in kept]
        if not own:
            continue
        rows = NewRows(getattr(module, parameter), own, axis)
        parametrize.register_parametrization(module, parameter, rows)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info(
        "lora: %d numbers are trained, in adapters of rank %d and %d new tokens",
        *(trained, lora.rank, len(numbers)),
    )


def _check_targets(model: torch.nn.Module, targets: Sequence[str]) -> None:
    named = dict(model.named_modules())
    linear = {n for n, module in named.items() if isinstance(module, torch.nn.Linear)}
    for target in targets:
        found = [name for name in named if name.endswith(target)]
        if found and linear.issuperset(found):
            continue
        fault = "no layer has a name that ends so"
        if found:
            other = sorted(set(found) - linear)[0]
            fault = f"{other} is a {type(named[other]).__name__}, expected Linear"
        ends = sorted({name.rpartition(".")[2] for name in linear})
        raise CheckpointError(
            f"lora.target_modules: {target}: {fault}; linear layers end in "
            f"{' '.join(ends)}"
        )


def merged_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters of the plain network; of one without adapters, its own."""
    state = model.state_dict()
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for parameter in module.parametrizations:
                inside = f"{name}.parametrizations.{parameter}."
                for key in [key for key in state if key.startswith(inside)]:
                    del state[key]
                state[f"{name}.{parameter}"] = getattr(module, parameter).detach()
        if f"{name}.lora_A" in state:
            product = state.pop(f"{name}.lora_B") @ state.pop(f"{name}.lora_A")
            state[f"{name}.weight"] = state[f"{name}.weight"] + product * module.scaling
    return state
