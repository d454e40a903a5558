"""A recogniser whose CTC output is written in the samples: no encoder, no weights.

Sample value k / 100 in the middle of a frame's stretch makes token k certain, so
expected paths and times can be worked out by hand.
"""

from types import SimpleNamespace

import torch

from powsm.decode.timing.blanks import USUAL
from powsm.model.frames import FrameGrid
from powsm.tasks import WORD_START

TOKENS = ["<blank>", "<unk>", WORD_START, "/p/", "/a/", "/t/", "/i/", "<eos>"]
BLANK, START, P, A, T, I = 0, 2, 3, 4, 5, 6  # noqa: E741
GRID = FrameGrid.from_kernels(160, ((3, 2), (3, 2)))
CERTAIN = 8.0  # logit of the token in the samples, the others have 0


def stand_in(edge_frames: int = 0):
    """Looks like `powsm.decode.recogniser.Recogniser` to alignment and long audio.

    Args:
        edge_frames: so many frames at both ends of what is encoded hear /t/ only, as
            an encoder without context may.
    """
    embed = torch.nn.Sequential(
        torch.nn.Conv2d(1, 1, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(1, 1, 3, 2)
    )
    model = SimpleNamespace(
        frontend=SimpleNamespace(stft=SimpleNamespace(hop_length=160, center=True)),
        encoder=SimpleNamespace(embed=embed),
        ctc=SimpleNamespace(log_softmax=lambda logits: logits.log_softmax(-1)),
        blank_id=BLANK,
    )
    seen = []

    def encode(speech, window="own"):
        logits = [encode_one(samples) for samples in speech]
        lens = torch.tensor(list(map(len, logits)))
        return torch.nn.utils.rnn.pad_sequence(logits, batch_first=True), lens

    def encode_one(samples):
        seen.append(len(samples))
        n = GRID.n_frames(len(samples))
        middles = [GRID.sample(t) + GRID.step // 2 for t in range(n)]
        ids = (samples[middles] * 100).round().long()
        if edge_frames:
            ids[:edge_frames] = ids[n - edge_frames :] = T
        logits = torch.nn.functional.one_hot(ids, len(TOKENS)).float() * CERTAIN
        return logits

    tokenizer = SimpleNamespace(
        token_list=TOKENS,
        token_ids={token: i for i, token in enumerate(TOKENS)},
        tokens=lambda ids: [TOKENS[i] for i in ids],
    )
    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        encode=encode,
        ctc_tables=lambda logits: iter([logits.log_softmax(-1)]),
        batch_seconds=lambda profile: 100.0,
        weights="none",
        timing=USUAL,
        seen=seen,
        is_ctc_only=False,
        check=lambda profile: None,
        check_ctc_says_phones=lambda: None,
    )


def speech_of(path):
    """Samples whose frames spell a path of token ids."""
    samples = torch.zeros(GRID.step * len(path) + 480)  # and what convolutions eat
    for t, token in enumerate(path):
        samples[GRID.sample(t) : GRID.sample(t + 1)] = token / 100
    assert GRID.n_frames(len(samples)) == len(path)
    return samples
