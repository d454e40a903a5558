"""Which stretch of audio an encoder frame covers, read off the model itself."""

from dataclasses import dataclass

import torch
from espnet2.s2t.espnet_model import ESPnetS2TModel

from powsm.audio import SAMPLE_RATE
from powsm.errors import PowsmError


@dataclass(frozen=True)
class FrameGrid:
    """Encoder frames in samples of the input, at `SAMPLE_RATE`.

    A frame hears more than its own stretch; the stretch given here is the step between
    frames, around the middle of what the frame hears.

    Attributes:
        step: samples from one frame to the next.
        offset: samples before the stretch of frame 0.
        hop: samples from one spectrogram frame to the next.
        kernels: (size, stride) along time of each convolution before the encoder.
    """

    step: int
    offset: int
    hop: int
    kernels: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, model: ESPnetS2TModel) -> "FrameGrid":
        """The grid of a model: hop of its frontend, strides of its subsampling.

        Raises:
            PowsmError: the spectrogram is not centred, so its frames lie elsewhere.
        """
        stft = model.frontend.stft
        if not stft.center:
            raise PowsmError(
                "the model's frontend has center: false; frame times are known for "
                "centred spectrograms only, ESPnet's default"
            )
        kernels = tuple(
            (module.kernel_size[0], module.stride[0])
            for module in model.encoder.embed.modules()
            if isinstance(module, (torch.nn.Conv1d, torch.nn.Conv2d))
        )
        return cls.from_kernels(stft.hop_length, kernels)

    @classmethod
    def from_kernels(
        cls, hop: int, kernels: tuple[tuple[int, int], ...]
    ) -> "FrameGrid":
        """The grid of a hop and unpadded convolutions.

        Two convolutions of size 3 and stride 2: frame 0 hears spectrogram frames 0 to
        6, whose middle is frame 3, at 30 ms; the stretch around it begins at 10 ms.

        >>> grid = FrameGrid.from_kernels(160, ((3, 2), (3, 2)))
        >>> grid.step, grid.offset, grid.seconds(0), grid.seconds(10)
        (640, 160, 0.01, 0.41)
        """
        stride, middle = 1, 0.0
        for size, step in kernels:
            middle += (size - 1) / 2 * stride
            stride *= step
        return cls(stride * hop, int((middle - stride / 2) * hop), hop, kernels)

    def n_frames(self, n_samples: int) -> int:
        """Frames of so much audio; 0 when it is too short to encode.

        >>> FrameGrid.from_kernels(160, ((3, 2), (3, 2))).n_frames(320_000)
        499
        """
        n = n_samples // self.hop + 1
        for size, stride in self.kernels:
            n = (n - size) // stride + 1
        return max(n, 0)

    def min_samples(self) -> int:
        """The shortest audio that gives a frame.

        >>> FrameGrid.from_kernels(160, ((3, 2), (3, 2))).min_samples()  # 7 frames
        960
        """
        n = 1
        for size, stride in reversed(self.kernels):
            n = (n - 1) * stride + size
        return (n - 1) * self.hop

    def sample(self, frame: int) -> int:
        """First sample of a frame's stretch."""
        return self.offset + frame * self.step

    def seconds(self, frame: float) -> float:
        """Time at which a frame's stretch begins; half a frame is half a step."""
        return (self.offset + frame * self.step) / SAMPLE_RATE
