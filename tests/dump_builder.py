"""A dump folder as stage 4 writes it, from noise and made-up phones."""

from pathlib import Path

import numpy as np
import soundfile

from powsm.audio import SAMPLE_RATE
from powsm.tasks import examples

PHONES = ("p", "a", "t", "i", "k", "u")
WORDS = {"p": "pe", "a": "ah", "t": "te", "i": "ee", "k": "ka", "u": "oo"}


def make_dump(
    folder: Path,
    durations_s: list[float],
    *,
    langs: tuple[str, ...] = ("eng", "ita"),
    no_text: tuple[int, ...] = (),
    seed: int = 0,
) -> Path:
    """Write one set; each phone is a tone of its own, so a model can learn it.

    Args:
        folder: `dump/raw/<set>`; audio goes to its `wav` folder.
        durations_s: one utterance each.
        langs: given to the utterances in turn.
        no_text: numbers of utterances without orthography: PR example only.
        seed: of phones and noise.
    """
    rng = np.random.default_rng(seed)
    (folder / "wav").mkdir(parents=True)
    rows = {name: [] for name in ("wav.scp", "text", "text.prev", "text.ctc")}
    rows |= {name: [] for name in ("utt2num_samples", "utt2lang", "utt2speaker")}
    refs = {"ref.ipa": [], "ref.text": []}
    for number, duration_s in enumerate(durations_s):
        lang = langs[number % len(langs)]
        utt_id = f"tiny_u{number:04d}_{lang}"
        n = int(duration_s * SAMPLE_RATE)
        phones = [PHONES[i] for i in rng.integers(0, len(PHONES), max(1, n // 4000))]
        time = np.arange(n) / SAMPLE_RATE
        which = np.minimum(np.arange(n) * len(phones) // n, len(phones) - 1)
        pitch = np.array([300 + 500 * PHONES.index(p) for p in phones])[which]
        speech = 0.3 * np.sin(2 * np.pi * pitch * time) + rng.normal(0, 0.01, n)
        path = folder / "wav" / f"{utt_id}.wav"
        soundfile.write(path, speech, SAMPLE_RATE)
        text = "" if number in no_text else " ".join(WORDS[p] for p in phones)
        for example in examples(utt_id, lang, phones, phones, text):
            rows["wav.scp"].append((example.example_id, str(path)))
            rows["text"].append((example.example_id, example.text))
            rows["text.prev"].append((example.example_id, example.text_prev))
            rows["text.ctc"].append((example.example_id, example.text_ctc))
            rows["utt2num_samples"].append((example.example_id, str(n)))
            rows["utt2lang"].append((example.example_id, lang))
            rows["utt2speaker"].append((example.example_id, lang))
        refs["ref.ipa"].append((utt_id, "".join(f"/{p}/" for p in phones)))
        if text:
            refs["ref.text"].append((utt_id, text))
    for name, pairs in (rows | refs).items():
        lines = sorted(f"{key} {value}\n".encode() for key, value in pairs)
        (folder / name).write_bytes(b"".join(lines))
    return folder
