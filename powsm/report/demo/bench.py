"""What the page of `powsm demo` asks: models, ways to decode, bounded recordings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from powsm.audio import SAMPLE_RATE, AudioError, speech_blocks
from powsm.decode.profile import SHIPPED, DecodeError, Profile, find_profile
from powsm.decode.recordings.model import Model
from powsm.decode.recordings.question import AUTO, UNKNOWN
from powsm.decode.recordings.result import Result
from powsm.errors import PowsmError
from powsm.files.text import read_text
from powsm.languages import LANGUAGES, language_name
from powsm.model.find import ModelFiles
from powsm.tasks import TASKS

USUAL = "usual profile"  # the profile that a task is decoded with when nobody says how
RESULTS_MD = "RESULTS.md"  # of stage 13: in the folder of an experiment, or packed
_WEAK_TITLE = "## What is weak"


@dataclass(frozen=True)
class Spoken:
    """A recording as it was heard: `samples` (n_samples,), float32 at 16 kHz."""

    name: str
    samples: np.ndarray

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Bench:
    """Models side by side.

    Attributes:
        models: by the name that the page shows.
        profiles: names or files; empty: those that come along and the model can do.
        max_s: seconds of the longest recording.
    """

    models: Mapping[str, Model]
    profiles: Sequence[str] = ()
    max_s: float = 60.0

    def ways(self) -> dict[str, tuple[Model, Profile | None]]:
        """Every model with every profile; None is `USUAL`.

        Raises:
            DecodeError: there is no such profile, or two of one name.
        """
        ways: dict[str, tuple[Model, Profile | None]] = {}
        for name, model in self.models.items():
            before = f"{name}: " if len(self.models) > 1 else ""
            ways[before + USUAL] = (model, None)
            for asked in self.profiles or SHIPPED:
                profile = find_profile(asked)
                if not self.profiles:
                    try:
                        model.recogniser.check(profile)
                    except PowsmError:
                        continue  # one that the model cannot do
                way = before + profile.name.removeprefix("decode_")
                if way in ways:
                    raise DecodeError(f"decode profile {asked}: {way} is named twice")
                ways[way] = model, profile
        return ways

    def tasks(self) -> list[tuple[str, str]]:
        """(title, name) of the tasks that one of the models has learned."""
        tokens = self._tokens()
        return [(t.title, t.name) for t in TASKS.values() if t.symbol in tokens]

    def languages(self) -> list[tuple[str, str]]:
        """(name, code) of their languages, after what stands for none."""
        tokens = self._tokens()
        known = [code for code in LANGUAGES if f"<{code}>" in tokens]
        named = sorted((f"{language_name(code)} ({code})", code) for code in known)
        heard = ("as the model hears it", AUTO)
        return [("not told", UNKNOWN), *([heard] if known else []), *named]

    def _tokens(self) -> set[str]:
        return {
            token
            for model in self.models.values()
            for token in model.recogniser.tokenizer.token_list
        }

    def hear(self, location: str) -> Spoken:
        """Read a recording, and no more of it than is allowed.

        Raises:
            AudioError: it cannot be used, or is too long.
        """
        blocks, n_samples = [], 0
        for block in speech_blocks(location, "mix"):
            blocks.append(block.astype(np.float32))
            n_samples += len(block)
            if n_samples > self.max_s * SAMPLE_RATE:
                raise AudioError(
                    f"{Path(location).name}: longer than the {self.max_s:g} s that "
                    "this page takes; powsm transcribe takes any length"
                )
        if not n_samples:
            raise AudioError(f"{Path(location).name}: no samples")
        return Spoken(Path(location).stem, np.concatenate(blocks))

    def transcribe(
        self, spoken: Spoken, way: str, task: str, lang: str, text: str
    ) -> Result:
        """What a way hears; see `Model.transcribe`."""
        model, profile = self.ways()[way]
        prompt = text.strip() if TASKS[task].is_prompted else ""
        result = model.transcribe(
            spoken.samples, task=task, lang=lang, text=prompt or None, profile=profile
        )
        return replace(result, name=spoken.name)

    def weak(self) -> dict[str, list[str]]:
        """What each model is bad at by its `RESULTS.md`; empty without one."""
        return {name: weak_lines(model.files) for name, model in self.models.items()}


def weak_lines(files: ModelFiles) -> list[str]:
    """The lines of `RESULTS.md` beside a model that say what is weak."""
    folder = files.config_file.parent
    places = [folder / RESULTS_MD]
    if len(folder.parents) > 1:  # packed: <root>/exp/<name>/config.yaml
        places.append(folder.parents[1] / RESULTS_MD)
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        return []
    _, _, rest = read_text(path).partition(f"{_WEAK_TITLE}\n")
    section = rest.partition("\n## ")[0]
    return [line[2:] for line in section.splitlines() if line.startswith("- ")]
