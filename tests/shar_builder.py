"""Tiny shards in Shar form, made without lhotse so that tests can bend them."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import soundfile


def encode(n_samples: int = 1600, *, rate: int = 16_000, form: str = "FLAC") -> bytes:
    """A quiet 440 Hz tone."""
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(n_samples) / rate)
    file = io.BytesIO()
    soundfile.write(file, tone.astype(np.float32), rate, format=form)
    return file.getvalue()


def make_cut(cut_id: str = "a1", *, n_samples: int = 1600, **supervision) -> dict:
    """A cut as lhotse writes it; keywords replace fields of its supervision."""
    duration_s = n_samples / 16_000
    custom = {
        "orthographic": supervision.pop("text", "Hi there"),
        "original": supervision.pop("ipa", "haɪ ðɛɹ"),
        "phones": supervision.pop("phones", "haɪðɛɹ"),
        "clean": "haɪðɛɹ",
    }
    return {
        "id": cut_id,
        "start": 0,
        "duration": duration_s,
        "channel": 0,
        "supervisions": [
            {
                "id": cut_id,
                "recording_id": cut_id,
                "start": 0,
                "duration": duration_s,
                "channel": 0,
                "text": "haɪðɛɹ",
                "language": "en",
                "speaker": "ann",
                "custom": custom,
            }
            | supervision
        ],
        "recording": make_recording(cut_id, n_samples=n_samples),
        "type": "MonoCut",
    }


def make_recording(cut_id: str, *, n_samples: int = 1600, rate: int = 16_000) -> dict:
    return {
        "id": cut_id,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": rate,
        "num_samples": n_samples,
        "duration": n_samples / rate,
        "channel_ids": [0],
    }


def members_of(cut: dict, audio: bytes | None = None) -> list[tuple[str, bytes]]:
    """The two tar members of a cut."""
    manifest = json.dumps(cut["recording"]).encode()
    data = encode(cut["recording"]["num_samples"]) if audio is None else audio
    return [(f"{cut['id']}.flac", data), (f"{cut['id']}.json", manifest)]


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_cuts(path: Path, cuts: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(cut, ensure_ascii=False) + "\n" for cut in cuts)
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(lines.encode())


def write_shard(split: Path, cuts: list[dict], number: str = "000000") -> None:
    """`cuts.<number>.jsonl.gz` and `recording.<number>.tar` in a folder."""
    write_cuts(split / f"cuts.{number}.jsonl.gz", cuts)
    members = [member for cut in cuts for member in members_of(cut)]
    write_tar(split / f"recording.{number}.tar", members)
