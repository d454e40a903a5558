"""Ranks with a model each, whose gradients are averaged when all of them are there.

DistributedDataParallel exchanges gradients during the backward pass, and a rank that
runs out of memory there cannot begin again: the others hold a part of what it sent.
Here the exchange comes after the last backward pass of an update, so that each rank
may take its batches in as many parts as fit (`powsm.train.memory`). The price is the
time of an exchange that no longer hides behind the backward pass.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

_CHUNK = 1 << 25  # gradients exchanged at a time: 128 MiB


class RankStrategy(DDPStrategy):
    """Lightning's ranks without DistributedDataParallel; see `average_gradients`."""

    def configure_ddp(self) -> None:
        """Begin with the weights of rank 0.

        NCCL takes contiguous tensors only, and ESPnet's mel matrix is a transposed one.
        """
        for tensor in self.model.state_dict().values():
            whole = tensor.contiguous()
            dist.broadcast(whole, src=0)
            tensor.copy_(whole)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks.

    A rank without a gradient counts as zero; where no rank has one, none is made, so
    that the optimiser leaves the parameter alone.

    Args:
        parameters: of the model, in the same order on all ranks.
    """
    parameters = [p for p in parameters if p.requires_grad]
    device = parameters[0].device
    has = torch.tensor([p.grad is not None for p in parameters], device=device).int()
    dist.all_reduce(has, dist.ReduceOp.MAX)
    grads = []
    for p, is_wanted in zip(parameters, has.tolist(), strict=True):
        if is_wanted and p.grad is None:
            p.grad = torch.zeros_like(p)
        if is_wanted:
            grads.append(p.grad)
    for chunk in _chunks(grads):
        flat = torch.cat([grad.flatten() for grad in chunk])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = flat.split([grad.numel() for grad in chunk])
        for grad, part in zip(chunk, parts, strict=True):
            grad.copy_(part.view_as(grad))


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
