"""What a GPU would be asked to do, counted on a machine without one.

Floats are shapes alone (PyTorch's meta device), integers are real: what follows
lengths, masks and token ids is what it would be, at any size of a model. Every
operator that computes is counted with the bytes that it reads and writes, the memory
that is held, and the places where the program would wait for the device: a number that
is asked for, an index of true places, a copy to the CPU.

    with Counting() as counts:
        model = on_device(model)
        model(**{name: on_device(x) for name, x in tensors.items()})
    counts.operators, counts.bytes, counts.peak, counts.waits

There is no autocast on the meta device, so bytes are those of float32.
"""

import traceback
import weakref
from collections import Counter
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

META = torch.device("meta")
# operators that compute nothing: another view of the same memory, or memory alone
_VIEWS = set(
    """view _unsafe_view reshape _reshape_alias transpose t permute expand slice select
    unsqueeze squeeze detach alias as_strided split split_with_sizes unbind view_as_real
    real imag lift_fresh diagonal unfold chunk narrow empty empty_like empty_strided
    new_empty new_empty_strided is_same_size sym_size""".split()
)
_ASKS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount",
         "unique_consecutive", "_unique2"}  # fmt: skip
_CTC_COPIES = 3  # offsets and both lengths go to the device, in each direction


class Counts:
    """Sums over all operators; `waits` by place, `file:line`."""

    def __init__(self) -> None:
        self.operators = 0
        self.bytes = 0
        self.live = self.peak = 0
        self.waits: Counter[str] = Counter()
        self._known: set[int] = set()

    def computed(self, *values) -> None:
        self.operators += 1
        self.bytes += sum(_n_bytes(x) for x in tree_leaves(values) if _is_tensor(x))

    def waited(self, times: int = 1) -> None:
        self.waits[_place()] += times

    def holds(self, elem: torch.Tensor) -> None:
        """A tensor's memory is in use until the last view of it is gone."""
        storage = elem.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class Held(torch.Tensor):
    """A tensor of the device: `elem` is meta where it holds floats, else on the CPU."""

    @staticmethod
    def __new__(cls, elem: torch.Tensor, counts: Counts):
        return torch.Tensor._make_wrapper_subclass(
            cls, elem.size(), strides=elem.stride(), dtype=elem.dtype, device=META,
            storage_offset=elem.storage_offset(),
        )  # fmt: skip

    def __init__(self, elem: torch.Tensor, counts: Counts):
        self.elem, self.counts = elem, counts
        counts.holds(elem)

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"Held({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        counts = next(x.counts for x in tree_leaves((args, kwargs)) if type(x) is Held)
        return _run(counts, func, args, kwargs or {})


class Counting:
    """Counts inside of a `with`; see the head of this module."""

    def __enter__(self) -> Counts:
        self._stack = ExitStack()
        counts = Counts()
        self._stack.enter_context(_Factories(counts))
        self._stack.enter_context(_Attention())
        return counts

    def __exit__(self, *error) -> None:
        self._stack.close()


def on_device(what, counts: Counts):
    """A tensor, or a module's parameters and buffers, on the device, uncounted."""
    if not isinstance(what, torch.nn.Module):
        with _disable_current_modes():
            return Held(_shape_of(what) if what.is_floating_point() else what, counts)
    for module in what.modules():
        for name, p in module._parameters.items():
            if p is not None:
                held = on_device(p.detach(), counts)
                module._parameters[name] = torch.nn.Parameter(held, p.requires_grad)
        for name, x in module._buffers.items():
            if x is not None:
                module._buffers[name] = on_device(x, counts)
        if isinstance(getattr(module, "pe", None), torch.Tensor):
            module.pe = on_device(module.pe, counts)  # a positional table
    return what


class _Factories(TorchDispatchMode):
    """Takes over what makes tensors on the device or moves them there."""

    def __init__(self, counts: Counts):
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        leaves = tree_leaves((args, kwargs))
        is_ours = any(type(x) is Held for x in leaves)
        if is_ours and _is_made_of_others(func):  # as under inference_mode
            with self:
                return func.decompose(*args, **kwargs)
        if is_ours or (device is not None and torch.device(device) == META):
            return _run(self._counts, func, args, kwargs)
        return func(*args, **kwargs)


class _Attention(TorchFunctionMode):
    """Scaled dot product attention is one operator, as it is on a GPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return _attention(*args, **(kwargs or {}))


def _attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **_):
    bias = attn_mask
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        bias = torch.zeros(attn_mask.shape, device=META)
        bias = bias.masked_fill(attn_mask.logical_not(), float("-inf"))
    if bias is not None:
        bias = bias.expand(*q.shape[:3], k.size(2))
    grad = torch.is_grad_enabled() and q.requires_grad
    run = torch.ops.aten._scaled_dot_product_efficient_attention
    return run(q, k, v, bias, grad, dropout_p, is_causal)[0]


def _run(counts: Counts, func, args, kwargs):
    name = func._schema.name.split("::")[1]
    special = _SPECIAL.get(name)
    if name in _ASKS:
        counts.waited()
    if special is not None:
        return special(counts, func, args, kwargs)
    return _plain(counts, func, name, args, kwargs)


def _plain(counts: Counts, func, name, args, kwargs):
    """Run on shapes where floats come in or go out, and on values otherwise."""
    kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    held = [x for x in tree_leaves((args, kwargs)) if type(x) is Held]
    dtype = kwargs.get("dtype")
    if name.startswith(("new_", "zeros_like", "ones_like", "full_like", "empty_like")):
        is_shape = (dtype or held[0].dtype).is_floating_point
    elif held:
        is_shape = any(x.elem.is_meta for x in held)
        is_shape |= dtype is not None and dtype.is_floating_point
    else:
        is_float = (dtype or torch.get_default_dtype()).is_floating_point
        is_number = name in ("arange", "scalar_tensor") and dtype is None
        is_shape = is_float and not (is_number and type(args[0]) is not float)
    if kwargs.get("device") is not None:
        kwargs["device"] = META if is_shape else torch.device("cpu")

    def bare(x):
        if not isinstance(x, torch.Tensor):
            return x
        elem = x.elem if type(x) is Held else x
        return _shape_of(elem) if is_shape else _values(elem)

    inputs = tree_map(bare, (args, kwargs))
    out = func(*inputs[0], **inputs[1])
    if name not in _VIEWS:
        counts.computed(inputs, out)
    if name.endswith("_") and type(args[0]) is Held:
        return args[0]
    return tree_map(lambda x: _held(x, counts), out)


def _held(x, counts: Counts):
    if not _is_tensor(x) or type(x) is Held:
        return x
    if x.is_floating_point():
        return Held(_shape_of(x), counts)
    return Held(x if not x.is_meta or x.numel() > 1 << 22 else _values(x), counts)


def _copy_to(counts: Counts, func, args, kwargs):
    source = args[0]
    elem = source.elem if type(source) is Held else source
    target = torch.device(kwargs.get("device") or source.device)
    if (target == META) != (type(source) is Held) and not kwargs.get("non_blocking"):
        counts.waited()
    dtype = kwargs.get("dtype") or elem.dtype
    if target != META:
        return _values(elem).to(dtype, copy=True)
    if not dtype.is_floating_point:
        out = _values(elem).to(dtype, copy=True)
    elif (form := kwargs.get("memory_format")) is not None:
        out = torch.empty_like(_shape_of(elem), dtype=dtype, memory_format=form)
    else:
        out = torch.empty_like(_shape_of(elem), dtype=dtype)
    counts.computed(elem, out)
    return Held(out, counts)


def _copy_into(counts: Counts, func, args, kwargs):
    into, source = args[0], args[1]
    if (type(into) is Held) != (type(source) is Held):
        counts.waited()
    if type(into) is not Held:
        return into.copy_(_values(source.elem))
    elem = source.elem if type(source) is Held else source
    if not into.elem.is_meta:
        into.elem.copy_(_values(elem))
    counts.computed(into.elem, elem)
    return into


def _places(counts: Counts, indices) -> list:
    """Row numbers; a mask becomes those of its true places, which are waited for."""
    found = []
    for index in indices:
        if index is None:
            found.append(None)
            continue
        values = _values(index.elem if type(index) is Held else index)
        if values.dtype == torch.bool:
            counts.waited()
            found += values.nonzero(as_tuple=True)
        else:
            found.append(values)
    return found


def _index(counts: Counts, func, args, kwargs):
    x = args[0].elem
    places = _places(counts, args[1])
    if x.is_meta:
        places = [None if i is None else _shape_of(i) for i in places]
    out = func(x, places)
    counts.computed(out, out)
    return Held(out, counts)


def _index_put(counts: Counts, func, args, kwargs):
    into, indices, value, *accumulate = args
    is_fill = value.numel() == 1 and type(value) is not Held
    is_mask = [i is not None and i.dtype == torch.bool for i in indices]
    before = counts.waits.copy()
    places = _places(counts, indices)
    if is_fill and sum(is_mask) == 1 and not accumulate:  # filled without being found
        counts.waits = before
    elem = value.elem if type(value) is Held else value
    if not into.elem.is_meta:
        into.elem.index_put_(places, _values(elem), *accumulate)
    counts.computed(into.elem if is_fill else elem, elem)
    return into


def _repeat(counts: Counts, func, args, kwargs):
    if kwargs.get("output_size") is None:
        counts.waited()
    return Held(func(args[0].elem, **kwargs), counts)


def _true_places(counts: Counts, func, args, kwargs):
    out = _values(args[0].elem).nonzero()
    counts.computed(args[0].elem, out)
    return Held(out, counts)


def _number(counts: Counts, func, args, kwargs):
    return _values(args[0].elem).item()


def _best(counts: Counts, func, args, kwargs):
    """Places of `topk`, `argmax` and `max`, which the shapes do not know: the first of
    few; of many, as of symbols, some that are neither special nor the last."""
    x = args[0].elem
    if not x.is_meta:
        return tree_map(lambda y: _held(y, counts), func(x, *args[1:], **kwargs))
    out = func(x, *args[1:], **kwargs)
    counts.computed(x, out)
    first = 200 if x.size(-1) > 1000 else 0

    def found(y):
        if y.is_floating_point():
            return Held(y, counts)
        n = y.size(-1) if y.dim() else 1
        return Held(torch.arange(first, first + n).expand(y.shape).clone(), counts)

    return tree_map(found, out)


def _ctc(counts: Counts, func, args, kwargs):
    log_probs, targets, _, lengths = args[:4]
    counts.waited(_CTC_COPIES)
    most = max(lengths.tolist() if _is_tensor(lengths) else lengths)
    shape = log_probs.elem
    loss = shape.new_empty(shape.size(1))
    alpha = shape.new_empty(shape.size(1), shape.size(0), 2 * most + 1)
    counts.computed(shape, loss, alpha)
    return Held(loss, counts), Held(alpha, counts)


def _ctc_backward(counts: Counts, func, args, kwargs):
    counts.waited(_CTC_COPIES)
    out = torch.empty_like(args[1].elem)
    counts.computed(args[1].elem, out)
    return Held(out, counts)


_SPECIAL = {
    "_to_copy": _copy_to, "copy_": _copy_into, "index": _index,
    "index_put_": _index_put, "_index_put_impl_": _index_put,
    "repeat_interleave": _repeat, "nonzero": _true_places,
    "_local_scalar_dense": _number, "topk": _best, "argmax": _best, "max": _best,
    "_ctc_loss": _ctc, "_ctc_loss_backward": _ctc_backward,
}  # fmt: skip


def _is_made_of_others(func) -> bool:
    implicit = torch._C.DispatchKey.CompositeImplicitAutograd
    return func.has_kernel_for_dispatch_key(implicit)


def _is_tensor(x) -> bool:
    return isinstance(x, torch.Tensor)


def _shape_of(x: torch.Tensor) -> torch.Tensor:
    if x.is_meta:
        return x
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=META)


def _values(x: torch.Tensor) -> torch.Tensor:
    """Ones for floats that are shapes, zeros for integers that came of them."""
    if not x.is_meta:
        return x
    make = torch.ones if x.is_floating_point() else torch.zeros
    return make(x.shape, dtype=x.dtype)


def _n_bytes(x: torch.Tensor) -> int:
    """Memory behind a tensor, what it repeats once."""
    n = 1
    for size, stride in zip(x.shape, x.stride(), strict=True):
        n *= size if stride else 1
    return n * x.element_size()


def _place() -> str:
    """The innermost line of the library or of ESPnet that is being run."""
    for frame in reversed(traceback.extract_stack()):
        for root in ("/espnet2/", "/powsm/"):
            if root in frame.filename and "/tests/" not in frame.filename:
                return f"{frame.filename.rpartition(root)[2]}:{frame.lineno}"
    return "backward"
