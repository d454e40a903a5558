"""Normalised features of a batch, by ESPnet's own modules, without a wait for a GPU.

ESPnet masks padding four times from lengths that it asks the device for, once in a
table of a number for each bin of the spectrogram. Frames are known from samples, so
the mask comes with the batch (`powsm.model.layout`). SpecAugment draws its masks on
the CPU: the upper end of a position depends on the widths drawn.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.asr.specaug.specaug import SpecAug
from espnet2.layers.global_mvn import GlobalMVN
from espnet2.layers.mask_along_axis import MaskAlongAxis, MaskAlongAxisVariableMaxWidth
from espnet2.s2t.espnet_model import ESPnetS2TModel

_CONVOLUTIONS = ("Conv2dSubsampling", "Conv2dSubsampling1", "Conv2dSubsampling2",
                 "Conv2dSubsampling6", "Conv2dSubsampling8")  # fmt: skip


def is_known(model: ESPnetS2TModel) -> bool:
    """Whether a model's way from speech to encoder is the one that is written here."""
    front, augment = model.frontend, model.specaug
    enhance = getattr(front, "frontend", None)
    return (
        type(front) is DefaultFrontend
        and front.stft is not None
        and front.stft.center
        and front.stft.n_fft % 2 == 0
        and (enhance is None or not (enhance.use_wpe or enhance.use_beamformer))
        and (augment is None or (type(augment) is SpecAug and not augment.time_warp))
        and (model.normalize is None or type(model.normalize) is GlobalMVN)
        and model.preencoder is None
        and model.postencoder is None
        and type(model.encoder) is EBranchformerEncoder
        and type(model.encoder.embed).__name__ in _CONVOLUTIONS
    )


def features(
    model: ESPnetS2TModel, speech: torch.Tensor, is_padding: torch.Tensor
) -> torch.Tensor:
    """What ESPnet's `encode` gives its encoder, for a model that `is_known`.

    Args:
        speech: (U, n_samples) on the model's device.
        is_padding: (U, T) bool, which frames of the spectrogram are.

    Returns:
        (U, T, n_mels), augmented where the model is being trained.
    """
    front = model.frontend
    with full_precision(speech.device.type):
        real, imaginary = front.stft(speech)[0].unbind(-1)
        power = torch.addcmul(real.square(), imaginary, imaginary)
        feats, _ = front.logmel(power)
        feats = feats.masked_fill(is_padding[:, :, None], 0.0)
        if model.specaug is not None and model.training:
            feats = _augment(model.specaug, feats)
        if model.normalize is not None:
            norm = model.normalize
            if norm.norm_means:
                feats = feats - norm.mean.to(feats)
            feats = feats.masked_fill(is_padding[:, :, None], 0.0)
            if norm.norm_vars:
                feats = feats / norm.std.to(feats)
    return feats


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A small tensor of the CPU on a device, which is not waited for."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def full_precision(device_type: str) -> AbstractContextManager:
    """Autocast off, where there is one: the meta device has none."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _augment(augment: SpecAug, feats: torch.Tensor) -> torch.Tensor:
    """ESPnet's masks over frequency and time, from the random numbers that it takes."""
    for module in (augment.freq_mask, augment.time_mask):
        widths = None if module is None else _widths(module, feats.size(module.dim))
        if widths is None:
            continue
        size, shape = feats.size(module.dim), (len(feats), module.num_mask)
        width = torch.randint(*widths, shape)[:, :, None]
        latest = max(1, size - int(width.max()))
        begin = torch.randint(0, latest, shape)[:, :, None]
        place = torch.arange(size)
        mask = ((begin <= place) & (place < begin + width)).any(1)
        mask = on_device(mask, feats.device)
        mask = mask[:, :, None] if module.dim == 1 else mask[:, None, :]
        value = 0.0 if module.replace_with_zero else feats.mean()
        feats = feats.masked_fill(mask, value)
    return feats


def _widths(
    module: MaskAlongAxis | MaskAlongAxisVariableMaxWidth, size: int
) -> tuple[int, int] | None:
    """Least width and one more than the most; None where there is nothing to mask."""
    if isinstance(module, MaskAlongAxis):
        return tuple(module.mask_width_range)
    low, high = (math.floor(size * share) for share in module.mask_width_ratio_range)
    low, high = max(0, low), min(size, high)
    return (low, high) if high > low else None
