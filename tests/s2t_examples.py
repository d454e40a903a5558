"""Examples of four tasks laid out our way and ESPnet's, for tests of the model."""

import numpy as np
import torch
from tiny_model import SETTINGS as TINY

TOKENS = (
    ["<blank>", "<unk>", "<na>", "<eng>", "<asr>", "<pr>", "<g2p>", "<p2g>"]
    + ["<notimestamps>", "▁", "a", "b", "/p/", "/ɔ/", "/s/"]
    + ["<sos>", "<eos>", "<sop>"]
)
TASK_IDS = {"asr": 4, "g2p": 6, "p2g": 7, "pr": 5}
PARTS = ("encoder", "encoder_conf", "decoder", "decoder_conf", "normalize")
SETTINGS = {part: TINY[part] for part in PARTS} | {"init": "xavier_uniform"}


def tensors(rows, pad=-1):
    lengths = torch.tensor([len(r) for r in rows])
    out = torch.full((len(rows), int(lengths.max())), pad)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    return out, lengths


def make_batches(samples=(9000, 16000, 12000), tasks=(4, 1, 3)):
    """The same examples laid out our way and ESPnet's: one row each."""
    rng = np.random.default_rng(1)
    speech = torch.zeros(len(samples), max(samples))
    for row, n in zip(speech, samples, strict=True):
        row[:n] = torch.from_numpy(rng.normal(0, 0.1, n).astype(np.float32))
    lengths = torch.tensor(samples)
    names = [["asr", "g2p", "p2g", "pr"][-n:] for n in tasks]
    text, prev, audio, ctc = [], [], [], []
    for u, these in enumerate(names):
        ctc.append(rng.integers(12, 15, 3 + u).tolist())
        for task in these:
            body = rng.integers(10, 15, 2 + len(text) % 4).tolist()
            text.append([3, TASK_IDS[task], 8, *body])
            prompted = task in ("g2p", "p2g")
            prev.append([9, *rng.integers(10, 15, 3 + u)] if prompted else [2])
            audio.append(u)
    text, text_lengths = tensors(text)
    prev, prev_lengths = tensors(prev)
    ctc, ctc_lengths = tensors(ctc)
    audio = torch.tensor(audio)
    shared = {
        "text": text,
        "text_lengths": text_lengths,
        "text_prev": prev,
        "text_prev_lengths": prev_lengths,
    }
    ours = shared | {
        "speech": speech,
        "speech_lengths": lengths,
        "text_ctc": ctc,
        "text_ctc_lengths": ctc_lengths,
        "example_audio": audio,
    }
    rows = shared | {
        "speech": speech[audio],
        "speech_lengths": lengths[audio],
        "text_ctc": ctc[audio],
        "text_ctc_lengths": ctc_lengths[audio],
    }
    return ours, {k: v.clone() for k, v in rows.items()}
