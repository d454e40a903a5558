"""Audio for ESPnet's own commands: the data type `powsm_audio`, read in place."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from powsm.audio import AudioError, read_audio

ESPNET_TYPE = "powsm_audio"  # the name under which ESPnet knows our reader


class AudioScp(Mapping[str, np.ndarray]):
    """A `wav.scp` as a mapping from utt_id to speech, decoded when asked for.

    This is the reader ESPnet's own commands use for the type `powsm_audio`.
    """

    def __init__(self, path: str | Path):
        self._locations: dict[str, str] = {}
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                utt_id, _, location = line.rstrip("\n").partition(" ")
                if not location or utt_id in self._locations:
                    fault = "given twice" if location else "has no audio after it"
                    raise AudioError(f"{path}:{number}: {utt_id!r} {fault}")
                self._locations[utt_id] = location

    def __getitem__(self, utt_id: str) -> np.ndarray:
        return read_audio(self._locations[utt_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)


def register_with_espnet() -> None:
    """Teach ESPnet the data type `powsm_audio`, in this process.

    From then on `wav.scp,speech,powsm_audio` is a valid triple for ESPnet's commands.
    Calling it again changes nothing.
    """
    from espnet2.train import dataset, iterable_dataset

    dataset.DATA_TYPES[ESPNET_TYPE] = {
        "func": AudioScp,
        "kwargs": [],
        "help": "Speech in audio files or inside tar shards, read in place."
        "\n\n"
        "   utterance_id_a shard.tar:1536:48210\n"
        "   utterance_id_b b.flac\n"
        "   ...",
    }
    iterable_dataset.DATA_TYPES[ESPNET_TYPE] = read_audio
