"""What the card is, which attention it takes, and whether it computes as a CPU."""

import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from powsm.train.gpu.material import Material
from powsm.train.gpu.measuring import median_ms, seconds

# the masks of our code: rows, heads are 12 of 64; what is masked; dropout
_MASKS = {
    "encoder": (499, 499, "frames", 0.1),
    "decoder": (920, 920, "rows", 0.1),
    "cross": (920, 499, "frames", 0.1),
    "encoder_eval": (499, 499, "frames", 0.0),
    "decoder_eval": (920, 920, "rows", 0.0),
    "token": (1, 101, None, 0.0),
    "token_cross": (3, 499, "frames", 0.0),
}
_NAMES = {
    int(value): name.lower()
    for name, value in vars(SDPBackend).items()
    if isinstance(value, SDPBackend)
}


def card(material: Material, found: dict) -> dict:
    """Name, memory, versions; what a large product and a copy reach on it."""
    device = material.device
    told = {
        "device": "cpu",
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        told["device"] = about.name
        told["memory_gb"] = round(about.total_memory / 1e9, 1)
        told["cudnn"] = torch.backends.cudnn.version()
    n = 256 if material.is_tiny else 8192
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    ms = median_ms(lambda: a @ a, device)
    told["bfloat16_tflops"] = round(2 * n**3 / ms / 1e9, 3)
    x = torch.zeros(n * n * 16, device=device, dtype=torch.uint8)
    y = torch.empty_like(x)
    ms = median_ms(lambda: y.copy_(x), device)
    told["copy_gb_s"] = round(2 * x.numel() / ms / 1e6, 1)
    return told


def attention(material: Material, found: dict) -> dict:
    """The kernel that PyTorch takes for each mask of ours, and what new shapes cost."""
    told = {}
    for name, (n_queries, n_keys, kind, dropout) in _MASKS.items():
        if material.is_tiny:
            n_queries, n_keys = min(n_queries, 9), min(n_keys, 9)
        for dtype in (torch.bfloat16, torch.float32):
            row = _Attention(material.device, dtype, kind, dropout)
            row.run(n_queries, n_keys)  # loads the kernel
            told[f"{name} {str(dtype)[6:]}"] = {
                "kernel": row.kernel(n_queries, n_keys),
                "new_shape_ms": round(row.run(n_queries, n_keys + 5), 3),
                "again_ms": round(row.run(n_queries, n_keys + 5), 3),
            }
    return told


class _Attention:
    """One mask of ours over made-up queries and keys."""

    def __init__(self, device, dtype, kind: str | None, dropout: float):
        self._device, self._dtype = device, dtype
        self._kind, self._dropout = kind, dropout

    def _inputs(self, n_queries: int, n_keys: int) -> tuple[torch.Tensor, ...]:
        like = {"device": self._device, "dtype": self._dtype}
        if self._kind == "rows":
            n_queries = n_keys
        grad = self._dropout > 0
        q = torch.randn(3, 12, n_queries, 64, **like).requires_grad_(grad)
        k = torch.randn(3, 12, n_keys, 64, **like).requires_grad_(grad)
        mask = None
        if self._kind == "frames":
            mask = torch.ones(3, 1, 1, n_keys, dtype=torch.bool, device=self._device)
            mask[..., -3:] = False
        elif self._kind == "rows":
            shape = (3, 1, n_keys, n_keys)
            mask = torch.ones(shape, dtype=torch.bool, device=self._device).tril()
        return q, k, mask

    def kernel(self, n_queries: int, n_keys: int) -> str:
        q, k, mask = self._inputs(n_queries, n_keys)
        return _NAMES[torch._fused_sdp_choice(q, k, k, mask, self._dropout)]

    def run(self, n_queries: int, n_keys: int) -> float:
        """Milliseconds; of a backward pass as well where there is dropout."""
        q, k, mask = self._inputs(n_queries, n_keys)

        def work() -> None:
            out = F.scaled_dot_product_attention(q, k, k, mask, self._dropout)
            if self._dropout:
                out.sum().backward()

        return seconds(work, self._device) * 1e3


def parity(material: Material, found: dict) -> dict:
    """Loss and gradients of two blocks: on the CPU, and here in both precisions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    changes = {"encoder_conf.num_blocks": 2, "decoder_conf.num_blocks": 2}
    model = material.model(**changes | material.without_chance()).train()
    batch = material.batch(model, [2.0, 1.9, 1.5])

    def run(device: torch.device, is_half: bool) -> tuple[float, dict]:
        model.to(device)
        model.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
            loss = model(**batch.to(device).arguments())[0]
        loss.backward()
        grads = {
            name: p.grad.detach().float().cpu()
            for name, p in model.named_parameters()
            if p.grad is not None
        }
        return float(loss.detach()), grads

    expected = run(torch.device("cpu"), False)
    return {
        "loss": round(expected[0], 4),
        "float32": _differences(expected, run(material.device, False)),
        "bfloat16": _differences(expected, run(material.device, True)),
    }


def _differences(expected: tuple[float, dict], got: tuple[float, dict]) -> dict:
    """Relative, of the loss and of the worst parameter's gradient.

    A gradient that is rounding alone, as that of a key's bias, is measured against the
    size of the others.
    """
    grads = expected[1]
    most = max(float(g.norm() / g.numel() ** 0.5) for g in grads.values())
    relative = {
        name: float((got[1][name] - g).norm())
        / max(float(g.norm()), 1e-3 * most * g.numel() ** 0.5)
        for name, g in grads.items()
    }
    worst = max(relative, key=relative.__getitem__)
    return {
        "loss": float(f"{abs(got[0] / expected[0] - 1):.1e}"),
        "gradient": float(f"{relative[worst]:.1e}"),
        "worst": worst,
    }
