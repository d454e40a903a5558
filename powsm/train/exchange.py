"""Ranks with a model each, whose gradients are added up when all of them are there.

DistributedDataParallel exchanges gradients during the backward pass, and a rank that
runs out of memory there cannot begin again: the others hold a part of what it sent.
Here the exchange comes after the last backward pass of an update, so that each rank
may take its batches in as many parts as fit (`powsm.train.memory`). The price is the
time of an exchange that no longer hides behind the backward pass.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

_CHUNK = 1 << 25  # gradients exchanged at a time: 128 MiB


class RankStrategy(DDPStrategy):
    """Lightning's ranks without DistributedDataParallel; see `mean_gradients`."""

    def configure_ddp(self) -> None:
        """Begin with the weights of rank 0.

        NCCL takes contiguous tensors only, and ESPnet's mel matrix is a transposed one.
        """
        for tensor in self.model.state_dict().values():
            whole = tensor.contiguous()
            dist.broadcast(whole, src=0)
            tensor.copy_(whole)


def mean_gradients(
    parameters: Iterable[torch.nn.Parameter],
    *,
    n_examples: int,
    divided_by: float,
    sums: torch.Tensor,
) -> torch.Tensor:
    """Make every gradient that of the mean over the examples of all ranks.

    A rank without a gradient counts as zero; where no rank has one, none is made, so
    that the optimiser leaves the parameter alone.

    Args:
        parameters: of the model, in the same order on all ranks.
        n_examples: of this rank in this update.
        divided_by: a gradient here is the sum over those examples, divided by this.
        sums: (n,) float64 numbers of this rank, to be added up beside the gradients.

    Returns:
        `sums` over all ranks.
    """
    parameters = [p for p in parameters if p.requires_grad]
    is_alone = not dist.is_initialized() or dist.get_world_size() == 1
    has = torch.tensor([p.grad is not None for p in parameters] + [n_examples])
    told = torch.cat([has.to(sums), sums])
    if not is_alone:
        dist.all_reduce(told)
    *wanted, n_all = told[: len(has)].tolist()
    grads = []
    for p, is_wanted in zip(parameters, wanted, strict=True):
        if is_wanted and p.grad is None:
            p.grad = torch.zeros_like(p)
        if is_wanted:
            grads.append(p.grad)
    factor = divided_by / n_all
    if is_alone:
        if factor != 1.0:
            torch._foreach_mul_(grads, factor)
        return sums
    for chunk in _chunks(grads):
        flat = torch.cat([grad.flatten() for grad in chunk])
        flat *= factor
        dist.all_reduce(flat)
        parts = flat.split([grad.numel() for grad in chunk])
        for grad, part in zip(chunk, parts, strict=True):
            grad.copy_(part.view_as(grad))
    return told[len(has) :]


class StatSums:
    """Statistics of an update, summed over its examples, batch by batch.

    Args:
        names: of all statistics that a batch may have.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self._sums: list[torch.Tensor] = []

    def add(self, stats: Mapping[str, torch.Tensor], weights: dict[str, int]) -> None:
        """Add means over `weights` examples; what a batch has none of, adds nothing."""
        n = torch.tensor([weights[k] if k in stats else 0 for k in self.names])
        zero = stats["loss"].new_zeros(())
        means = [stats.get(k, zero).detach().reshape(()) for k in self.names]
        means = torch.stack(means).double()
        n = n.to(means, non_blocking=True)
        self._sums.append(torch.cat([means * n, n]))

    def take(self, device: torch.device) -> torch.Tensor:
        """Sums and counts (2 x names,) float64 of the update, which begins anew."""
        zeros = torch.zeros(2 * len(self.names), dtype=torch.float64, device=device)
        taken = sum(self._sums, zeros)
        self._sums.clear()
        return taken

    def means(self, sums: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean over the examples of each statistic that there is."""
        totals, counts = sums.split(len(self.names))
        means = (totals / counts).float()
        there = counts.tolist()
        return {k: x for k, x, n in zip(self.names, means, there, strict=True) if n}


def _chunks(grads: list[torch.Tensor]) -> Iterable[list[torch.Tensor]]:
    chunk: list[torch.Tensor] = []
    size = 0
    for grad in grads:
        if chunk and size + grad.numel() > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(grad)
        size += grad.numel()
    if chunk:
        yield chunk
