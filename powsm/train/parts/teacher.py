"""A trained model with a decoder, whose CTC head another model also learns from.

Both hear a recording at the same rate of frames, and what the teacher hears in one is
phones and blank, whatever the task: so it says, frame by frame, what a head that is
taught phones should say. It hears no masks. It learns nothing, and is no part of the
model that is trained: neither checkpoints nor published models hold it.
"""

import logging
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F

from powsm.audio import SAMPLE_RATE
from powsm.model.ctc_heads import PhoneLinear
from powsm.model.find import CheckpointError, find_model
from powsm.model.frames import FrameGrid
from powsm.model.s2t_ctc import PowsmCtcModel
from powsm.model.weights import load_model
from powsm.vocabulary.phone_sets import is_phone

log = logging.getLogger(__name__)


class Teacher:
    """What the CTC head of a frozen model says of blank and phones.

    Args:
        model: with a CTC head over phones; its decoder is taken off.
        token_list: of the student, whose phones are all among the model's tokens.

    Attributes:
        token_ids: (C,) the student's ids of blank and its phones.
    """

    def __init__(self, model: torch.nn.Module, token_list: Sequence[str]):
        ids = [0] + [i for i, token in enumerate(token_list) if is_phone(token)]
        self.token_ids = torch.tensor(ids)
        number = {token: i for i, token in enumerate(model.token_list)}
        own = torch.tensor([number[token_list[i]] for i in ids])
        head = model.ctc.ctc_lo
        if isinstance(head, PhoneLinear):
            rows = head.of_tokens(own)
        else:
            rows = head.weight[own], head.bias[own]
        self._weight, self._bias = (row.detach() for row in rows)
        model.decoder = None
        self._model = model.eval().requires_grad_(False)

    @classmethod
    def load(cls, source: str, student: PowsmCtcModel, ctc_target: str) -> Self:
        """From an experiment folder, a packed model or a Hub tag.

        Args:
            student: the model that is to learn from it.
            ctc_target: what the student's heads of phones are taught.

        Raises:
            CheckpointError: there is no such model, or it does not say the student's
                phones at the student's frames.
        """
        files = find_model(source)
        model = load_model(files)
        if fault := _fault(model, student, ctc_target):
            raise CheckpointError(f"model_conf.teacher: {source} {fault}")
        log.info("taught by %s", files.describe())
        return cls(model, student.token_list)

    @torch.no_grad()
    def __call__(self, speech: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (U, T, C) of blank and phones, which add up to 1.

        Args:
            speech: (U, n_samples) of U recordings.
            lengths: (U,) their samples.
        """
        if self._weight.device != speech.device:
            self._move(speech.device)
        memory, _ = self._model.encode(speech.to(self._weight.dtype), lengths)
        memory = memory[0] if isinstance(memory, tuple) else memory
        return F.linear(memory, self._weight, self._bias).float().log_softmax(-1)

    def _move(self, device: torch.device) -> None:
        self._model.to(device)
        self._weight, self._bias = self._weight.to(device), self._bias.to(device)
        self.token_ids = self.token_ids.to(device)

    def __deepcopy__(self, memo: dict) -> Self:
        """Averages of a student's weights are copies of it, and share its teacher."""
        return self


def _fault(
    model: torch.nn.Module, student: PowsmCtcModel, ctc_target: str
) -> str | None:
    """Why a model cannot teach another; None where it can."""
    if isinstance(model, PowsmCtcModel):
        return "has no decoder; expected a POWSM, which hears phones without a prompt"
    if model.ctc is None:
        return "has no CTC head to learn from; expected one with model_conf.ctc_weight"
    if model.ctc_target != ctc_target:
        return f"was trained with ctc_target: {model.ctc_target}, expected {ctc_target}"
    theirs, ours = FrameGrid.of(model), FrameGrid.of(student)
    if theirs != ours:
        return (
            f"has a frame every {1000 * theirs.step / SAMPLE_RATE:g} ms, expected "
            f"{1000 * ours.step / SAMPLE_RATE:g}: the same frontend_conf and "
            "encoder_conf.input_layer as the model it teaches"
        )
    known = set(model.token_list)
    phones = [token for token in student.token_list if is_phone(token)]
    if lacks := [token for token in phones if token not in known]:
        more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""
        return (
            f"has no token for {' '.join(lacks[:3])}{more} of the {len(phones)} phones "
            "here; take one that was trained on the same phones"
        )
    return None
