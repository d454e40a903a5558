"""Decode profiles: `conf/decode_*.yaml` names everything that moves a score."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from powsm.config import load_yaml
from powsm.search import SearchOptions
from powsm.tasks import TASKS

LID = "lid"
FIRST_PASS = {"g2p": "asr", "p2g": "pr"}  # what predicts the prompt of a task


class DecodeError(ValueError):
    """Decoding that cannot be done; the message says what to change."""


@dataclass(frozen=True)
class Profile:
    """One frozen way to decode.

    Attributes:
        name: the file's name without `.yaml`; results stand in a folder of this name.
        decode: `attention`, `joint` (decoder with CTC) or `ctc`: the CTC head alone,
            which speaks phones whatever the task.
        tasks: of `pr asr g2p p2g lid`.
        lang: `own` (of each utterance), `detected` (by the model), or a symbol like
            `<unk>` for all.
        prev: what prompts g2p and p2g: the `gold` text of the dump folder, what the
            model itself `predicted` from the same audio (asr for g2p, pr for p2g), or
            `none`.
        audio: what g2p and p2g hear: their `own` audio, or `silence` of its length.
        window: `own` length, or `published`: padded with silence to 20 s.
        batch_seconds: most seconds of audio, padding included, in a batch.
        search: options of `powsm.search.SearchOptions`.
    """

    name: str
    decode: str = "attention"
    tasks: tuple[str, ...] = ("pr",)
    lang: str = "own"
    prev: str = "gold"
    audio: str = "own"
    window: str = "own"
    batch_seconds: float = 100.0
    search: SearchOptions = SearchOptions()

    def __post_init__(self) -> None:
        choices = {
            "decode": ("attention", "joint", "ctc"),
            "prev": ("gold", "predicted", "none"),
            "audio": ("own", "silence"),
            "window": ("own", "published"),
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise DecodeError(
                    f"decode profile {self.name}: {name} is {getattr(self, name)!r}, "
                    f"expected one of {' '.join(valid)}"
                )
        unknown = set(self.tasks) - {*TASKS, LID}
        if unknown or not self.tasks:
            raise DecodeError(
                f"decode profile {self.name}: tasks {sorted(unknown)} do not exist; "
                f"choose among {' '.join((*TASKS, LID))}"
            )
        if self.decode == "ctc" and set(self.tasks) != {"pr"}:
            raise DecodeError(
                f"decode profile {self.name}: the CTC head always speaks phones, it "
                f"cannot do {' '.join(t for t in self.tasks if t != 'pr')}; "
                "use decode: attention or joint"
            )

        unprompted = set(self.tasks) - set(FIRST_PASS)
        if unprompted and (self.prev, self.audio) != ("gold", "own"):
            raise DecodeError(
                f"decode profile {self.name}: {' '.join(sorted(unprompted))} has no "
                f"prompt, prev: {self.prev} and audio: {self.audio} are for "
                f"{' '.join(FIRST_PASS)}"
            )
        if self.prev != "gold" and self.audio == "silence":
            raise DecodeError(
                f"decode profile {self.name}: with audio: silence and prev: "
                f"{self.prev} nothing is left to decode from; use prev: gold"
            )

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Read `conf/decode_<name>.yaml`.

        Raises:
            ConfigError: not YAML, or no mapping.
            DecodeError: an unknown key or value.
        """
        path = Path(path)
        settings = load_yaml(path)
        search = settings.pop("search", None) or {}
        ours = {f.name for f in fields(cls)} - {"name", "search"}
        theirs = {f.name for f in fields(SearchOptions)}
        unknown = sorted(set(settings) - ours)
        unknown += sorted(f"search.{key}" for key in set(search) - theirs)
        if unknown:
            raise DecodeError(
                f"{path}: unknown {' '.join(unknown)}; known are "
                f"{' '.join(sorted(ours))} and search: {' '.join(sorted(theirs))}"
            )
        if "tasks" in settings:
            settings["tasks"] = tuple(settings["tasks"])
        return cls(name=path.stem, search=SearchOptions(**search), **settings)

    def tag(self, task: str) -> str:
        """Folder of a task's results: `pr_ctc`, `asr_attention`, `pr_joint_unk`, `lid`.

        A language that is not the utterance's own is part of the name, since it makes
        another result of the same search; so are `predicted`, `none` and `silence`.
        """
        if task == LID:
            return task
        parts = [task, self.decode]
        if self.lang != "own":
            parts.append(self.lang.strip("<>"))
        if self.prev != "gold":
            parts.append(self.prev)
        if self.audio != "own":
            parts.append(self.audio)
        return "_".join(parts)

    def digest(self) -> str:
        """Short hash of all settings: two results with one digest compare."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
