"""Decode a dump folder with a trained model: profiles, resumable parts, JSONL.

A decode profile (`conf/decode_*.yaml`) names everything that moves a score. Batches
are cut by length in a fixed order; a finished batch is appended whole to this rank's
part file, so that a killed run goes on where it was and ends with the same bytes.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from espnet2.s2t.espnet_model import ESPnetS2TModel
from tqdm import tqdm

from powsm.audio import SAMPLE_RATE, WINDOW_S, AudioError, read_audio
from powsm.config import load_yaml
from powsm.ctc_prefix import CTCHypothesis, ctc_greedy
from powsm.files import atomic_write, sha256_file
from powsm.frames import FrameGrid
from powsm.index import ExampleIndex
from powsm.languages import LANGUAGES, UNKNOWN_LANG_SYM
from powsm.model import PowsmTask
from powsm.search import Hypothesis, Searcher, SearchOptions, language_log_probs
from powsm.tasks import NA_SYM, NO_TIME_SYM, TASKS, parse_output
from powsm.tokenizer import Tokenizer

log = logging.getLogger(__name__)

LID = "lid"
FIRST_PASS = {"g2p": "asr", "p2g": "pr"}  # what predicts the prompt of a task
N_BEST_LANGUAGES = 5  # written for each utterance


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


def default_weights(exp: Path) -> Path:
    """The averaged model of an experiment folder.

    Raises:
        DecodeError: there is none.
    """
    averages = sorted(Path(exp).glob("valid.*.ave.pth"))
    if not averages:
        raise DecodeError(
            f"{exp}: no valid.*.ave.pth; run stage 11 to its end, or name the weights"
        )
    return averages[0]


@dataclass(frozen=True)
class Recogniser:
    """A model with its tokenizer, ready to decode."""

    model: ESPnetS2TModel
    tokenizer: Tokenizer
    device: torch.device
    weights: str  # short hash of the weights' file

    @classmethod
    def load(
        cls, exp: Path, model_file: Path | None = None, device: str = "cpu"
    ) -> "Recogniser":
        """Load an experiment folder.

        Args:
            exp: folder with `config.yaml`.
            model_file: weights; default is the averaged model of the folder.

        Raises:
            DecodeError: no model, or a parameter that is missing, left over or of
                another shape.
        """
        exp = Path(exp)
        if model_file is None:
            model_file = default_weights(exp)
        model, args = PowsmTask.build_model_from_file(exp / "config.yaml")
        state = torch.load(model_file, map_location="cpu", weights_only=True)
        try:
            model.load_state_dict(state, strict=True)
        except RuntimeError as err:
            raise DecodeError(
                f"{model_file} does not fit {exp}/config.yaml: {err}"
            ) from err
        tokenizer = Tokenizer(args.bpemodel, model.token_list)
        weights = sha256_file(model_file)[:12]
        return cls(model.to(device).eval(), tokenizer, torch.device(device), weights)

    @torch.inference_mode()
    def encode(
        self, speech: Sequence[torch.Tensor], window: str = "own"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder output of recordings.

        Args:
            speech: tensors (n_samples,), 16 kHz.
            window: `published` pads each to 20 s with silence, and cuts longer ones.

        Returns:
            (B, T, D) and the true lengths (B,).
        """
        if window == "published":
            n = int(WINDOW_S * SAMPLE_RATE)
            speech = [
                torch.nn.functional.pad(s[:n], (0, n - len(s[:n]))) for s in speech
            ]
        lengths = torch.tensor([len(s) for s in speech])
        padded = torch.nn.utils.rnn.pad_sequence(list(speech), batch_first=True)
        out, lens = self.model.encode(padded.to(self.device), lengths.to(self.device))
        return (out[0] if isinstance(out, tuple) else out), lens

    def prompt(self, lang_sym: str, task: str, text_prev: str = NA_SYM) -> list[int]:
        """Token ids that an output starts from.

        Raises:
            DecodeError: the model has no token for the language.
        """
        ids = self.tokenizer.token_ids
        if lang_sym not in ids:
            raise DecodeError(
                f"{lang_sym} is not in this model's vocabulary; use {UNKNOWN_LANG_SYM}"
            )
        model = self.model
        prompt = [model.sos, ids[lang_sym], ids[f"<{task}>"], ids[NO_TIME_SYM]]
        if text_prev == NA_SYM:
            return prompt
        return [model.sop, *self.tokenizer.encode(text_prev), *prompt]

    def languages(self) -> list[str]:
        """Language symbols of the vocabulary, in its order."""
        known = [f"<{code}>" for code in LANGUAGES]
        return [sym for sym in known if sym in self.tokenizer.token_ids]

    def detect_languages(
        self, memory: torch.Tensor, lens: torch.Tensor
    ) -> list[list[tuple[str, float]]]:
        """Languages of encoded recordings, likeliest first, with log-probabilities."""
        symbols = self.languages()
        ids = [self.tokenizer.token_ids[sym] for sym in symbols]
        log_probs = language_log_probs(self.model, memory, lens, ids).log_softmax(-1)
        order = log_probs.argsort(dim=-1, descending=True)
        return [
            [(symbols[i], float(row[i])) for i in best]
            for row, best in zip(log_probs, order.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Item:
    """One thing to decode."""

    utt_id: str
    audio: str
    n_samples: int
    lang_sym: str
    text_prev: str


def items(folder: Path, task: str) -> list[Item]:
    """What a dump folder has for a task; LID takes the PR examples."""
    index = ExampleIndex(folder)
    suffix = "pr" if task == LID else task
    found = []
    for utt in range(len(index)):
        for example in index.examples(utt):
            if example["id"].rpartition("_")[2] == suffix:
                found.append(
                    Item(
                        utt_id=index.utt_id(utt),
                        audio=index.audio(utt),
                        n_samples=int(index.num_samples[utt]),
                        lang_sym=parse_output(example["text"]).lang_sym,
                        text_prev=example["text_prev"],
                    )
                )
    return found


def cut_batches(todo: Sequence[Item], profile: Profile) -> list[list[Item]]:
    """Batches by length, longest first, of at most `batch_seconds` with padding."""
    window = int(WINDOW_S * SAMPLE_RATE) if profile.window == "published" else 0
    most = profile.batch_seconds * SAMPLE_RATE
    batches: list[list[Item]] = []
    for item in sorted(todo, key=lambda i: (-i.n_samples, i.utt_id)):
        longest = max(batches[-1][0].n_samples if batches else 0, window)
        if batches and longest * (len(batches[-1]) + 1) <= most:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


@torch.inference_mode()
def decode_batch(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    batch: Sequence[Item],
    speech: Sequence[torch.Tensor],
) -> list[dict]:
    """Decode one batch; a record per item, as written to `hyp.jsonl`.

    A predicted prompt is found on the same encoder output, and kept in the record as
    `text_prev`.
    """
    if profile.audio == "silence":
        speech = [torch.zeros_like(samples) for samples in speech]
    memory, lens = recogniser.encode(speech, profile.window)
    model, tokenizer = recogniser.model, recogniser.tokenizer
    records = [
        {
            "utt_id": item.utt_id,
            "lang_sym": item.lang_sym if profile.lang == "own" else profile.lang,
            "task_sym": f"<{task}>",
            "seconds": round(item.n_samples / SAMPLE_RATE, 3),
            "profile": profile.digest(),
            "weights": recogniser.weights,
        }
        for item in batch
    ]
    if task == LID or profile.lang == "detected":
        for record, best in zip(
            records, recogniser.detect_languages(memory, lens), strict=True
        ):
            record["lang_sym"] = best[0][0]
            if task == LID:
                record["text"] = best[0][0]
                record["languages"] = {
                    sym: round(score, 4) for sym, score in best[:N_BEST_LANGUAGES]
                }
        if task == LID:
            return records
    if profile.decode == "ctc":
        log_probs = model.ctc.log_softmax(memory)
        hyps = ctc_greedy(log_probs, lens, blank=model.blank_id)
    else:
        searcher = Searcher(model, profile.search)
        langs = [record["lang_sym"] for record in records]

        def search(task: str, prompt_texts: list[str]) -> list[Hypothesis | None]:
            prompts = [
                recogniser.prompt(lang, task, text)
                for lang, text in zip(langs, prompt_texts, strict=True)
            ]
            found = searcher.search_with_halving(memory, lens, prompts)
            return [hyp[0] if hyp else None for hyp in found]

        texts = [item.text_prev for item in batch]
        if profile.prev != "gold":
            texts = [NA_SYM] * len(batch)
        if profile.prev == "predicted":
            first = search(FIRST_PASS[task], texts)
            texts = [_text_of(tokenizer, hyp) or NA_SYM for hyp in first]
            for record, text in zip(records, texts, strict=True):
                record["text_prev"] = text
        hyps = search(task, texts)
    for record, hyp in zip(records, hyps, strict=True):
        record["text"] = _text_of(tokenizer, hyp)
        record["tokens"] = [] if hyp is None else tokenizer.tokens(hyp.tokens)
        record["score"] = None if hyp is None else round(hyp.score, 4)
    return records


def _text_of(tokenizer: Tokenizer, hyp: Hypothesis | CTCHypothesis | None) -> str:
    return "" if hyp is None else parse_output(tokenizer.tokens(hyp.tokens)).text


def _finished(part: Path) -> Iterator[dict]:
    """Records of a part file; a last line cut short by a kill is left out."""
    if not part.exists():
        return
    with open(part, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def decode_set(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    folder: Path,
    out: Path,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Path:
    """Decode this rank's batches of a set; rank parts stay until `merge`.

    Args:
        folder: the set's dump folder.
        out: where `part.<rank>.jsonl` is written.

    Returns:
        The part file.

    Raises:
        DecodeError: the set has nothing for this task, or a part of another profile.
    """
    todo = items(folder, task)
    if not todo:
        raise DecodeError(f"{folder}: no utterance has a {task} example")
    part = out / f"part.{rank}.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    done = list(_finished(part))
    made_from = (profile.digest(), recogniser.weights)
    if any((record["profile"], record["weights"]) != made_from for record in done):
        log.info("%s was decoded with other settings; starting again", part)
        done = []
    finished = {record["utt_id"] for record in done}
    batches = cut_batches(todo, profile)[rank::world_size]
    kept = {
        i.utt_id for b in batches if all(i.utt_id in finished for i in b) for i in b
    }
    with atomic_write(part) as file:
        file.writelines(_line(r) for r in done if r["utt_id"] in kept)
    started = time.monotonic()
    seconds = 0.0
    left = [batch for batch in batches if batch[0].utt_id not in kept]
    label = f"{profile.name} {folder.name} {task}"
    with open(part, "a", encoding="utf-8") as file:
        for batch in tqdm(left, desc=label, unit="batch", disable=None):
            records = _read_and_decode(recogniser, profile, task, batch)
            file.write("".join(_line(record) for record in records))
            file.flush()
            seconds += sum(item.n_samples for item in batch) / SAMPLE_RATE
    passed = time.monotonic() - started
    timing = out / f"timing.{rank}.jsonl"
    if left:
        with open(timing, "a", encoding="utf-8") as file:
            file.write(json.dumps({"audio_s": seconds, "compute_s": passed}) + "\n")
        log.info(
            "%s: %d utterances, %.1f min of audio in %.1f s, real-time factor %.4f",
            label,
            len(todo),
            seconds / 60,
            passed,
            passed / max(seconds, 1e-9),
        )
    return part


def read_speech(location: str, min_samples: int) -> torch.Tensor:
    """Speech (n_samples,) of one utterance, long enough to encode.

    Raises:
        AudioError: it cannot be read, or is shorter than `min_samples`.
    """
    samples = torch.from_numpy(read_audio(location))
    if len(samples) < min_samples:
        raise AudioError(
            f"{location}: {len(samples) / SAMPLE_RATE:.3f} s is too short to encode; "
            f"the model needs {min_samples / SAMPLE_RATE:.3f} s"
        )
    return samples


def _read_and_decode(
    recogniser: Recogniser, profile: Profile, task: str, batch: Sequence[Item]
) -> list[dict]:
    """Decode what can be read; audio that cannot gives an empty text and its error."""
    good, speech, records = [], [], []
    is_padded = profile.window == "published"
    shortest = 1 if is_padded else FrameGrid.of(recogniser.model).min_samples()
    for item in batch:
        try:
            samples = read_speech(item.audio, min_samples=shortest)
            speech.append(samples)
            good.append(item)
        except (AudioError, OSError) as err:
            log.warning("%s: %s", item.utt_id, err)
            records.append(
                {
                    "utt_id": item.utt_id,
                    "lang_sym": item.lang_sym,
                    "task_sym": f"<{task}>",
                    "profile": profile.digest(),
                    "weights": recogniser.weights,
                    "text": "",
                    "error": str(err),
                }
            )
    if good:
        records += decode_batch(recogniser, profile, task, good, speech)
    return records


def _line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"


def merge(folder: Path, task: str, out: Path) -> Path:
    """Join all parts into `hyp.jsonl` and `text`, sorted, each utterance once.

    Raises:
        DecodeError: utterances are missing or not of the set; some are named.
    """
    expected = {item.utt_id for item in items(folder, task)}
    records = {}
    parts = sorted(out.glob("part.*.jsonl"))
    for part in parts:
        for record in _finished(part):
            records[record["utt_id"]] = record
    missing, extra = sorted(expected - set(records)), sorted(set(records) - expected)
    if missing or extra:
        raise DecodeError(
            f"{out}: {len(missing)} of {len(expected)} utterances are missing "
            f"({' '.join(missing[:3])}) and {len(extra)} are not of this set "
            f"({' '.join(extra[:3])}); run stage 12 again"
        )
    failed = sum("error" in record for record in records.values())
    if failed:
        log.warning("%s: %d of %d could not be read", out, failed, len(records))
    order = sorted(records, key=lambda utt_id: utt_id.encode())
    with atomic_write(out / "text") as file:
        for utt_id in order:
            file.write(f"{utt_id} {records[utt_id]['text']}".rstrip() + "\n")
    timings = [
        json.loads(line)
        for path in sorted(out.glob("timing.*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    totals = {
        key: round(sum(t[key] for t in timings), 3) for key in ("audio_s", "compute_s")
    }
    with atomic_write(out / "timing.json") as file:
        json.dump(totals, file)
    with atomic_write(out / "hyp.jsonl") as file:
        file.writelines(_line(records[utt_id]) for utt_id in order)
    for path in (*parts, *out.glob("timing.*.jsonl")):
        path.unlink()
    return out / "hyp.jsonl"
