"""Decode profiles: `conf/decode_*.yaml` names everything that moves a score."""

import difflib
import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from powsm.errors import PowsmError
from powsm.languages import LANGUAGES, UNKNOWN_LANG_SYM, lang_sym
from powsm.settings import load_yaml, type_faults
from powsm.tasks import DECODED_TASKS, LID, PHONES, TASKS, plain_task, tasks_writing
from powsm.vocabulary.phone_sets import parse_phone_set, phone_set

LEVELS = ("own", "usual")  # of recordings, as they are heard
_SEARCHES = ("search", "first_search")  # keys that hold options of a search
# the prompted tasks, and what predicts the prompt of each
FIRST_PASS = {t.name: t.first_pass for t in TASKS.values() if t.is_prompted}
# what the CTC head says, whatever it is asked: phones without a prompt
CTC_TASKS = tuple(t for t in tasks_writing(PHONES) if not TASKS[t].is_prompted)
BATCH_S = 100.0  # seconds of a batch, where nobody says and no GPU has room for more


class DecodeError(PowsmError):
    """Decoding that cannot be done; the message says what to change."""


@dataclass(frozen=True)
class SearchOptions:
    """How to search. Names and meanings are ESPnet's; the last two switches are ours.

    Attributes:
        beam_size: hypotheses kept a step; 1 is greedy.
        ctc_weight: weight of the CTC prefix score, the decoder has the rest; with 1
            the decoder does not run.
        penalty: added to the score for every token.
        maxlenratio: most tokens per encoder frame. 0: as many as frames, and the
            search stops by end detection; negative: a number of tokens.
        minlenratio: fewest tokens per encoder frame; negative: a number of tokens.
        nbest: hypotheses returned an utterance, at most.
        normalize_length: rank finished hypotheses by score per token, prompt included.
        ctc_length_bound: most tokens per label on the CTC's best path (10 more are
            always allowed); 0 is off.
        repetition_guard: a stretch of up to 8 tokens may occur so many times in a
            row; 0 is off.
    """

    beam_size: int = 1
    ctc_weight: float = 0.0
    penalty: float = 0.0
    maxlenratio: float = 0.0
    minlenratio: float = 0.0
    nbest: int = 1
    normalize_length: bool = False
    ctc_length_bound: float = 0.0
    repetition_guard: int = 0

    def __post_init__(self) -> None:
        least = {"beam_size": 1, "nbest": 1, "ctc_length_bound": 0,
                 "repetition_guard": 0}  # fmt: skip
        checks = [
            *((k, f"{n} or more", lambda x, n=n: n <= x < math.inf)
              for k, n in least.items()),
            ("ctc_weight", "0 to 1", lambda x: 0 <= x <= 1),
            ("penalty", "a number", math.isfinite),
            ("maxlenratio", _RATIO, _is_ratio),
            ("minlenratio", _RATIO, _is_ratio),
        ]  # fmt: skip
        faults = [
            f"{name} is {value}; expected {expected}"
            for name, expected, is_good in checks
            if not is_good(value := getattr(self, name))
        ]
        if faults:
            raise PowsmError("search options: " + "; ".join(faults))


_RATIO = "0 or more, or a whole number below 0"


def _is_ratio(number: float) -> bool:
    """Whether it is tokens per frame, or, below 0, a number of tokens."""
    return math.isfinite(number) and (number >= 0 or number == int(number))


@dataclass(frozen=True)
class Profile:
    """One frozen way to decode.

    Attributes:
        name: the file's name without `.yaml`; results are in a folder of this name.
        decode: `attention`, `joint` (decoder with CTC) or `ctc`: the CTC head alone,
            which says phones whatever the task. A model without a decoder does all by
            `ctc`, frame by frame, or as ESPnet does: `joint` with a `ctc_weight` of 1.
        tasks: of `pr asr g2p p2g lid`.
        lang: `own` (of each utterance), `detected` (by the model), or a symbol like
            `<unk>` for all.
        languages: codes among which lid and `detected` choose; empty: all that the
            model has.
        phones: `all`, a language whose phones in training are the only ones that pr
            and g2p may say, or the phones themselves (`load` reads a list or a file).
        prev: what prompts g2p and p2g: the `gold` text of the dump folder, what the
            model itself `predicted` from the same audio (asr for g2p, pr for p2g), or
            `none`.
        audio: what g2p and p2g hear: their `own` audio, or `silence` of its length.
        blocks: of a model without a decoder, further CTC heads that are read in the
            same pass, by their best path: what stands after these encoder blocks.
        window: `own` length, or `published`: padded with silence to 20 s.
        level: `own`, or `usual`: every recording made as loud as most are.
        dtype: `float32`, or `bfloat16` for the matrix products.
        batch_seconds: most seconds of audio, padding included, in a batch, or `auto`:
            100 on a CPU, on a GPU what its free memory holds, up to 1,280.
        search: options of `SearchOptions`. With `decode: ctc` only
            `beam_size` and `nbest`; a beam above 1 sums paths that say the same.
        first_search: how the prompt is `predicted`, where not by `search`. A weight of
            CTC is for phones, the prompt of p2g.
    """

    name: str
    decode: str = "attention"
    tasks: tuple[str, ...] = (plain_task(PHONES),)
    lang: str = "own"
    languages: tuple[str, ...] = ()
    phones: str | tuple[str, ...] = "all"
    prev: str = "gold"
    audio: str = "own"
    blocks: tuple[int, ...] = ()
    window: str = "own"
    level: str = "own"
    dtype: str = "float32"
    batch_seconds: float | str = "auto"
    search: SearchOptions = SearchOptions()
    first_search: SearchOptions | None = None

    def __post_init__(self) -> None:
        choices = {
            "decode": ("attention", "joint", "ctc"),
            "prev": ("gold", "predicted", "none"),
            "audio": ("own", "silence"),
            "window": ("own", "published"),
            "level": LEVELS,
            "dtype": ("float32", "bfloat16"),
        }
        for name, valid in choices.items():
            if (value := getattr(self, name)) not in valid:
                raise self._error(
                    f"{name} is {value!r}, expected one of {' '.join(valid)}"
                )
        size = self.batch_seconds
        if size != "auto" and (isinstance(size, str) or not 0 < size < math.inf):
            raise self._error(f"batch_seconds is {size}, expected more than 0, or auto")
        unknown = set(self.tasks) - set(DECODED_TASKS)
        if unknown or not self.tasks:
            raise self._error(
                f"tasks {sorted(unknown)} do not exist; choose among "
                f"{' '.join(DECODED_TASKS)}"
            )
        self._check_search()
        self._check_prompts()
        symbols = {UNKNOWN_LANG_SYM, *map(lang_sym, LANGUAGES)}
        if self.lang not in {"own", "detected", *symbols}:
            raise self._error(
                f"lang is {self.lang!r}, expected own, detected, or the symbol of a "
                f"language, such as {UNKNOWN_LANG_SYM} or <eng>"
            )
        if unknown := sorted(set(self.languages) - set(LANGUAGES)):
            raise self._error(
                f"languages {' '.join(unknown)} are no ISO 639-3 codes of a language "
                "with a symbol"
            )
        if self.languages and self.lang != "detected" and LID not in self.tasks:
            raise self._error(
                "languages is for the task lid and for lang: detected; it has neither"
            )
        with_phones = tasks_writing(PHONES)
        if self.phones != "all" and (others := set(self.tasks) - set(with_phones)):
            raise self._error(
                f"phones: {self.phones} is for {' and '.join(with_phones)}; "
                f"{' '.join(sorted(others))} says no phones"
            )

    def _check_search(self) -> None:
        search, size = self.search, self.search.beam_size
        if self.decode == "ctc":
            if search != SearchOptions(size, nbest=min(search.nbest, size)):
                raise self._error(
                    "of search, decode: ctc knows beam_size and nbest alone, and nbest "
                    f"is no larger ({search.nbest} of {size})"
                )
        elif (search.ctc_weight > 0) != (self.decode == "joint"):
            raise self._error(
                f"decode is {self.decode} and search.ctc_weight {search.ctc_weight}; "
                "joint is with CTC, attention without"
            )

    def _check_prompts(self) -> None:
        unprompted = set(self.tasks) - set(FIRST_PASS)
        if unprompted and (self.prev, self.audio) != ("gold", "own"):
            raise self._error(
                f"{' '.join(sorted(unprompted))} has no prompt, prev: {self.prev} and "
                f"audio: {self.audio} are for {' '.join(FIRST_PASS)}"
            )
        if self.prev != "gold" and self.audio == "silence":
            raise self._error(
                f"with audio: silence and prev: {self.prev} nothing is left to decode "
                "from; use prev: gold"
            )
        if self.first_search is None:
            return
        if self.prev != "predicted":
            raise self._error("first_search is for prev: predicted")
        if self.first_search.ctc_weight > 0 and set(self.tasks) != {"p2g"}:
            raise self._error(
                "first_search.ctc_weight: the CTC head says phones, which prompt p2g "
                "alone"
            )

    def check_model(self, *, has_decoder: bool, finds_language: bool) -> None:
        """Refuse a model that cannot do what the profile asks for.

        Args:
            has_decoder: False for a model that does everything by CTC.
            finds_language: whether it was taught to.

        Raises:
            DecodeError: names the task or setting, and the reason.
        """
        if has_decoder:
            if self.blocks:
                raise self._error(
                    "blocks is for models without a decoder; leave it out"
                )
            others = [task for task in self.tasks if task not in CTC_TASKS]
            if self.decode == "ctc" and others:
                raise self._error(
                    "the CTC head always speaks phones, it cannot do "
                    f"{' '.join(others)}; use decode: attention or joint"
                )
            return
        if self.decode != "ctc" and self.search.ctc_weight != 1:
            raise self._error(
                f"decode: {self.decode} is for models with a decoder, and this one has "
                "none; use decode: ctc, or joint with search.ctc_weight 1"
            )
        if not finds_language and (LID in self.tasks or self.lang == "detected"):
            asked = "lid" if LID in self.tasks else "lang: detected"
            raise self._error(
                f"{asked} is nothing that this model was taught: it was given the "
                "language of every example (lang_apply_prob: 1.0); name it, or train "
                "with lang_apply_prob below 1"
            )

    def _error(self, fault: str) -> DecodeError:
        return DecodeError(f"decode profile {self.name}: {fault}")

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Read `conf/decode_<name>.yaml`.

        Raises:
            ConfigError: not YAML, or no mapping.
            DecodeError: an unknown key or value.
        """
        path = Path(path)
        settings = load_yaml(path)
        searches = {
            key: settings.pop(key) or {} for key in _SEARCHES if key in settings
        }
        if not all(isinstance(search, dict) for search in searches.values()):
            raise DecodeError(
                f"{path}: {' and '.join(searches)} hold 'key: value' lines"
            )
        ours = {f.name for f in fields(cls)} - {"name", *_SEARCHES}
        theirs = {f.name for f in fields(SearchOptions)}
        unknown = sorted(set(settings) - ours)
        unknown += sorted(
            f"{name}.{key}"
            for name, search in searches.items()
            for key in set(search) - theirs
        )
        if unknown:
            raise DecodeError(
                f"{path}: unknown {' '.join(unknown)}; known are "
                f"{' '.join(sorted(ours))} and search: {' '.join(sorted(theirs))}"
            )
        faults = type_faults(cls, settings)
        for name, search in searches.items():
            faults += [f"{name}: {f}" for f in type_faults(SearchOptions, search)]
        if faults:
            raise DecodeError(f"{path}: {'; '.join(faults)}")
        for key in ("tasks", "languages", "blocks"):
            if key in settings:
                settings[key] = tuple(settings[key])
        if isinstance(phones := settings.get("phones"), list):
            settings["phones"] = parse_phone_set(" ".join(phones), f"{path}: phones")
        elif phones is not None:
            settings["phones"] = phone_set(phones)
        options = {name: SearchOptions(**said) for name, said in searches.items()}
        return cls(name=path.stem, **options, **settings)

    @property
    def reads_ctc(self) -> bool:
        """Whether the labels of the CTC head decide anything."""
        searches = filter(None, (self.search, self.first_search))
        return self.decode == "ctc" or any(
            search.ctc_weight > 0 or search.ctc_length_bound > 0 for search in searches
        )

    def tag(self, task: str) -> str:
        """Folder of a task's results: `pr_ctc`, `asr_attention`, `pr_joint_unk`, `lid`.

        Languages are what a decoder says first; without one they are `lid_ctc`. What
        makes another result of the same search is part of the name: a language that is
        not the utterance's own, `predicted`, `none` and `silence`, and `inventory`
        where phones are barred.
        """
        if task == LID:
            return f"{task}_ctc" if self.decode == "ctc" else task
        parts = [task, self.decode]
        if self.lang != "own":
            parts.append(self.lang.strip("<>"))
        if self.prev != "gold":
            parts.append(self.prev)
        if self.audio != "own":
            parts.append(self.audio)
        if self.phones != "all":
            parts.append("inventory")
        return "_".join(parts)

    def digest(self) -> str:
        """Short hash of all settings: two results with one digest compare."""
        settings = asdict(self)
        if self.batch_seconds == "auto":
            settings["batch_seconds"] = BATCH_S  # as profiles were before they had it
        if self.first_search is None:
            del settings["first_search"]  # as profiles were before they had it
        if self.level == "own":
            del settings["level"]
        if not self.blocks:
            del settings["blocks"]
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


# Profiles that are with every installation; `conf/decode_<name>.yaml` says the same.
SHIPPED = {
    profile.name.removeprefix("decode_"): profile
    for profile in (
        Profile("decode_ctc_greedy", decode="ctc"),
        Profile("decode_attention", tasks=("pr", "asr", "g2p", "p2g")),
        Profile("decode_ctc_tasks", decode="ctc", tasks=("pr", "asr", "g2p", "p2g")),
        Profile(
            "decode_joint",
            decode="joint",
            tasks=("pr", "g2p"),
            search=SearchOptions(beam_size=3, ctc_weight=0.3),
        ),
    )
}


def default_profile(task: str, has_decoder: bool = True) -> Profile:
    """How a task is decoded when nobody says how: by CTC, words by the decoder."""
    if not has_decoder:
        return SHIPPED["ctc_tasks"]
    return SHIPPED["ctc_greedy" if task in CTC_TASKS else "attention"]


def find_profile(asked: str | Path, conf: Path = Path("conf")) -> Profile:
    """A profile by its file or its name: `joint` is `conf/decode_joint.yaml`.

    A file in `conf` comes before one of `SHIPPED`.

    Raises:
        DecodeError: there is none of this name; names the nearest.
    """
    path = Path(asked)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise DecodeError(f"decode profile {asked}: no such file")
        return Profile.load(path)
    name = str(asked).removeprefix("decode_")
    path = conf / f"decode_{name}.yaml"
    if path.is_file():
        return Profile.load(path)
    if name in SHIPPED:
        return SHIPPED[name]
    here = {path.stem.removeprefix("decode_") for path in conf.glob("decode_*.yaml")}
    known = sorted(here | SHIPPED.keys())
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {' '.join(known)}"
    raise DecodeError(f"decode profile {asked}: no such file or name; {hint}")


def for_task(
    profile: Profile,
    task: str,
    *,
    has_text: bool = False,
    phones: str | tuple[str, ...] | None = None,
    level: str | None = None,
) -> Profile:
    """A profile as it decodes one task, and its own self where nothing is changed.

    Args:
        has_text: a prompt that is given takes the place of one that is predicted.
        phones, level: see `Profile`; None: as the profile has it.

    Raises:
        DecodeError: the profile cannot do the task, or phones were named for words.
    """
    changes = {"phones": phones, "level": level}
    changes = {key: value for key, value in changes.items() if value is not None}
    if task not in profile.tasks or phones is not None:
        changes["tasks"] = (task,)
    if has_text and profile.prev != "gold":
        changes |= {"prev": "gold", "first_search": None}
    return replace(profile, **changes) if changes else profile
