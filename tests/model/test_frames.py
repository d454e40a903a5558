"""Frame arithmetic against ESPnet's own layers."""

from types import SimpleNamespace

import pytest
import torch
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.legacy.nets.pytorch_backend.transformer import subsampling

from powsm.audio import SAMPLE_RATE, n_encoder_frames
from powsm.model.frames import FrameGrid


def front_of(layer, hop=160):
    """A model's frontend and subsampling layer, the parts the grid is read from."""
    frontend = DefaultFrontend(n_fft=512, win_length=400, hop_length=hop)
    embed = layer(80, 4, 0.0)
    encoder = SimpleNamespace(embed=embed)
    return SimpleNamespace(frontend=frontend, encoder=encoder)


@pytest.mark.parametrize(
    ("layer", "hop", "step", "offset"),
    [
        # middles of frame 0, in spectrogram frames: 1+2, 1, 1+2*2, 1+2+4
        (subsampling.Conv2dSubsampling, 160, 4 * 160, 3 * 160 - 2 * 160),
        (subsampling.Conv2dSubsampling, 128, 4 * 128, 3 * 128 - 2 * 128),
        (subsampling.Conv2dSubsampling2, 160, 2 * 160, 2 * 160),
        (subsampling.Conv2dSubsampling6, 160, 6 * 160, 5 * 160 - 3 * 160),
        (subsampling.Conv2dSubsampling8, 160, 8 * 160, 7 * 160 - 4 * 160),
    ],
)
def test_grid_is_that_of_the_layer(layer, hop, step, offset):
    model = front_of(layer, hop)
    grid = FrameGrid.of(model)
    assert (grid.step, grid.offset) == (step, offset)
    for n in (grid.min_samples(), 16_000, 16_159, 16_160, 31_999):
        feats, lens = model.frontend(torch.zeros(1, n), torch.tensor([n]))
        mask = torch.ones(1, 1, int(lens))
        out, _ = model.encoder.embed(feats, mask)
        out = out[0] if isinstance(out, tuple) else out
        assert grid.n_frames(n) == out.size(1)
    assert grid.n_frames(grid.min_samples() - 1) == 0


def test_grid_of_the_papers_model_agrees_with_the_constants():
    grid = FrameGrid.of(front_of(subsampling.Conv2dSubsampling))
    assert grid.step / SAMPLE_RATE == 0.04
    for n in range(0, 40_000, 79):
        assert grid.n_frames(n) == n_encoder_frames(n)


def test_uncentred_spectrograms_are_refused():
    model = front_of(subsampling.Conv2dSubsampling)
    model.frontend.stft.center = False
    with pytest.raises(ValueError, match="center: false"):
        FrameGrid.of(model)
