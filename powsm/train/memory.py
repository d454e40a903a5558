"""The gradients of one update: batches that do not fit, and the sum over ranks.

DistributedDataParallel exchanges gradients during the backward pass, and a rank that
runs out of memory there cannot begin again: the others hold a part of what it sent.
Here the exchange comes after the last backward pass of an update, so that each rank
may take its batches in as many parts as fit (`UpdateInParts`). The price is the
time of an exchange that no longer hides behind the backward pass.
"""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from powsm.audio import SAMPLE_RATE
from powsm.errors import PowsmError
from powsm.model.batch import Batch
from powsm.train.dataset import collate

log = logging.getLogger(__name__)

_MOST_OF_GPU = 0.9  # of its memory, for a size that is to last through the training
_N_RANGES = 4  # of lengths, whose batches are tried each on their own


class TrainingError(PowsmError):
    """Training that cannot go on; the message says what to change."""


def split_in_half(batch: Batch) -> list[Batch]:
    """A batch in two.

    Raises:
        TrainingError: it is a single recording; names it and its length.
    """
    if batch.n_recordings == 1:
        seconds = float(batch.speech_lengths.max()) / SAMPLE_RATE
        raise TrainingError(
            f"out of memory with one recording, {batch.utt_ids[0]}: {seconds:.1f} s "
            f"and {batch.n_examples} examples; take a smaller model, or lower "
            "max_duration in stage 4"
        )
    return batch.halves()


@dataclass
class _Held:
    """A batch of the update under way, and the parts that it is taken in."""

    step: int
    parts: list[Batch]


class UpdateInParts:
    """The gradients of one update, batch by batch, for when one of them is too large.

    It keeps the batches since the last optimiser step (audio and token ids, no
    activations). When memory runs out, in the forward or the backward pass, gradients
    of unknown completeness are dropped and the update so far is done again with the
    offending batch in smaller parts. Losses, those of batches as those of parts, are
    means over examples and count by their number, so that gradients add up to that of
    the mean over all examples of the update. (Nearly:
    as in any batch, the last frames of a recording see some of the padding beside them
    in ESPnet's convolutions, and a part has less of it; and with ESPnet's
    `length_normalized_loss` a token counts by the length of its part.)

    Args:
        module: with `model`, a `PowsmModel`, and `seed_step`.
    """

    def __init__(self, module: L.LightningModule):
        self._module = module
        self._held: list[_Held] = []
        self._n_examples: list[int] = []
        self._trying = (0, 0)  # which batch held, and which part of it

    def hold(self, batch: Batch, step: int, parts: Sequence[Batch] = ()) -> None:
        """Remember a batch before it is tried, and in which parts that is to be.

        Args:
            parts: on any device; none is the whole.
        """
        self._held.append(_Held(step, list(parts) or [batch]))
        self._n_examples.append(batch.n_examples)
        self._trying = (len(self._held) - 1, 0)

    def weight(self, batch: Batch) -> float:
        """What a loss, the mean over its examples, counts: 1 for the first batch.

        Gradients of the size of a mean lose nothing in half precision, and an update
        of one batch stays what it is to the last bit.
        """
        return batch.n_examples / self._n_examples[0]

    def clear(self) -> tuple[int, int]:
        """Forget the batches of an update that is done.

        Returns:
            The examples that weighed 1, and those of the whole update on this rank.
        """
        unit, total = self._n_examples[0], sum(self._n_examples)
        self._held.clear()
        self._n_examples.clear()
        return unit, total

    def add_parts(self) -> dict[str, torch.Tensor]:
        """Gradients of the newest batch, part by part, beside those that there are.

        Returns:
            Statistics of the batch.

        Raises:
            TrainingError: a single recording does not fit.
        """
        if len(self._held) == 1:
            self._drop_gradients()
        try:
            return self._gradients_of(len(self._held) - 1)
        except torch.OutOfMemoryError:
            pass  # as below
        return self.do_again()

    def do_again(self) -> dict[str, torch.Tensor]:
        """Gradients of all batches held, what did not fit in halves or less.

        Returns:
            Statistics of the last batch.

        Raises:
            TrainingError: a single recording does not fit.
        """
        while True:
            number, part = self._trying
            held = self._held[number]
            held.parts[part : part + 1] = split_in_half(held.parts[part])
            log.warning(
                "out of memory at batch %d: taken in %d parts; utterances: %s",
                held.step,
                len(held.parts),
                " ".join(utt_id for part in held.parts for utt_id in part.utt_ids),
            )
            try:
                return self._gradients()
            except torch.OutOfMemoryError:
                pass  # its frames hold tensors: go on outside of this clause

    def _gradients(self) -> dict[str, torch.Tensor]:
        self._drop_gradients()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for place in range(len(self._held)):
            stats = self._gradients_of(place)
        return stats

    def _drop_gradients(self) -> None:
        for p in self._module.parameters():
            p.grad = None

    def _gradients_of(self, place: int) -> dict[str, torch.Tensor]:
        module, held = self._module, self._held[place]
        accumulate = module.trainer.accumulate_grad_batches
        sums: dict[str, torch.Tensor] = {}
        weights: Counter[str] = Counter()
        for number, part in enumerate(held.parts):
            self._trying = (place, number)
            module.seed_step(held.step, part=number)
            with module.trainer.precision_plugin.train_step_context():
                loss, some, _ = module.model(**part.to(module.device).arguments())
            with torch.autocast(module.device.type, enabled=False):
                (loss * (self.weight(part) / accumulate)).backward()
            for key, n in module.model.stat_weights(some, part.text).items():
                sums[key] = sums.get(key, 0.0) + n * some[key]
                weights[key] += n
        return {key: value / weights[key] for key, value in sums.items()}


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
    in_bfloat16: bool = False,
) -> torch.Tensor:
    """Make every gradient that of the mean over the examples of all ranks.

    A rank without a gradient counts as zero; where no rank has one, none is made, so
    that the optimiser leaves the parameter alone.

    Args:
        parameters: of the model, in the same order on all ranks.
        n_examples: of this rank in this update.
        divided_by: a gradient here is the sum over those examples, divided by this.
        sums: (n,) float64 numbers of this rank, to be added up beside the gradients.
        in_bfloat16: the gradients travel, and are added up, in 16 bits, as the
            published training has them (`ddp_comm_hook: bf16_compress_hook`).

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
    flat = torch.cat([grad.flatten() for grad in grads])
    sizes = [grad.shape for grad in grads]
    grads.clear()  # two copies at a time, not three
    flat *= factor
    if in_bfloat16:
        half = flat.bfloat16()
        dist.all_reduce(half)
        flat.copy_(half)
    else:
        dist.all_reduce(flat)
    parts = iter(flat.split([size.numel() for size in sizes]))
    for p, is_wanted in zip(parameters, wanted, strict=True):
        if is_wanted:  # a part of what was exchanged: nothing is copied back
            p.grad = next(parts).view(p.shape)
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


@dataclass(frozen=True)
class Parts:
    """In how many parts batches are taken, by the length of their longest recording.

    Attributes:
        ends: samples of the longest recording of each range of lengths, rising.
        numbers: of parts, of each range.
    """

    ends: Sequence[int] = (0,)
    numbers: Sequence[int] = (1,)

    def of(self, batch: Batch) -> list[Batch]:
        """The parts of a batch; itself where it is taken as a whole."""
        longest = int(batch.speech_lengths.max())
        number = self.numbers[min(bisect_left(self.ends, longest), len(self.ends) - 1)]
        return [batch] if number == 1 else batch.parts(number)

    def __str__(self) -> str:
        ends = [f"{end / SAMPLE_RATE:.1f} s: {n}" for end, n in
                zip(self.ends, self.numbers, strict=True)]  # fmt: skip
        return ", ".join(ends)


class PartFinder(L.Callback):
    """`batch_seconds: auto`: in how many parts this rank takes batches, by length.

    A quarter of the batches of a pass each, by their longest recording, are a range. Of
    each, the batches with the longest recordings, the most of them and the most text
    are tried, forward and back, beside the room that an optimiser with two moments
    takes, in nine tenths of the GPU's memory. Parts add up to the gradient of their
    batch, so what is found changes speed and neither the training nor its order: each
    rank finds its own, and each start anew.
    """

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        ends, numbers = [], []
        for end, batches in _hardest(module):
            ends.append(end)
            numbers.append(_fewest_parts(trainer, module, batches))
        module.parts = Parts(ends, numbers)
        options = module.batch_options
        log.info(
            "batch_seconds: auto is %.1f s, %d batches an update; parts that a batch "
            "is taken in, by its longest recording: up to %s",
            *(options.batch_seconds, options.update_batches, module.parts),
        )


def _hardest(module: L.LightningModule) -> Iterator[tuple[int, list[Batch]]]:
    """For each range of lengths its end in samples, and the batches to be tried.

    Those with the longest recordings, the most of them, and the most text.
    """
    dataset = module.dataset("train")
    plan = dataset.plan(module.batch_options, 0)
    longest = plan.total[plan.bounds[1:] - 1]  # sorted by length within a batch
    counts = np.diff(plan.bounds)
    text = np.add.reduceat(dataset.index.text_bytes()[plan.utts], plan.bounds[:-1])
    sizes = [size[plan.order] for size in (longest, counts, text)]
    shares = np.arange(1, _N_RANGES + 1) / _N_RANGES
    ends = np.unique(np.quantile(sizes[0], shares, method="higher"))
    range_of = np.searchsorted(ends, sizes[0])
    for number, end in enumerate(ends.tolist()):
        mine = np.flatnonzero(range_of == number)
        chosen = {int(mine[np.argmax(size[mine])]) for size in sizes}
        keys = [plan.batch(b) for b in sorted(chosen)]
        yield end, [collate([dataset[key] for key in batch]) for batch in keys]


def _fewest_parts(trainer, module, batches: Sequence[Batch]) -> int:
    """The fewest parts in which batches fit.

    Raises:
        TrainingError: a recording alone does not fit.
    """
    n, most = 1, max(batch.n_recordings for batch in batches)
    while not _fit(trainer, module, batches, n):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if n == most:
            longest = max(batches, key=lambda batch: batch.speech.size(1))
            split_in_half(longest.parts(most)[-1])  # which refuses, and names it
        n = min(most, n + max(1, n // 4))
    return n


def _fit(trainer, module, batches: Sequence[Batch], n_parts: int) -> bool:
    parameters = [p for p in module.parameters() if p.requires_grad]
    moments = []
    cuda = module.device.type == "cuda"
    if cuda:
        torch.cuda.set_per_process_memory_fraction(_MOST_OF_GPU, module.device)
    try:
        moments = [torch.empty_like(p) for p in parameters for _ in range(2)]
        for part in (part for batch in batches for part in batch.parts(n_parts)):
            tensors = part.to(module.device).arguments()
            with trainer.precision_plugin.train_step_context():
                loss = module.model(**tensors)[0]
            loss.backward()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        moments.clear()
        for p in parameters:
            p.grad = None
        if cuda:
            torch.cuda.set_per_process_memory_fraction(1.0, module.device)
