"""A model in hand, as `powsm.load` gives it.

model = powsm.load("exp/x")
model("talk.wav").text
model.transcribe(samples, rate=44_100, task="asr", lang="ita")
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import overload

import numpy as np
import torch
from torch import Tensor

from powsm.audio import SAMPLE_RATE, WINDOW_S, AudioError
from powsm.decode.align import align
from powsm.decode.align_files import Segment
from powsm.decode.longform import OVERLAP_S, ctc_frames
from powsm.decode.profile import Profile
from powsm.decode.recogniser import Recogniser
from powsm.decode.recordings.question import UNKNOWN, Question
from powsm.decode.recordings.result import Result
from powsm.decode.recordings.samples import Audio, speech_of
from powsm.decode.recordings.stretches import Recording, Speech, at_usual_level
from powsm.decode.transcribe import PHONE_TASKS, Job, transcribe
from powsm.errors import PowsmError
from powsm.languages import UNKNOWN_LANG_SYM
from powsm.model.find import ModelFiles, find_model
from powsm.model.frames import FrameGrid
from powsm.model.weights import device_of
from powsm.phones.orthography import normalise_text
from powsm.phones.slashed import to_slashed
from powsm.tasks import NA_SYM, PHONES, TASKS

GROUP_S = 400.0  # seconds of recordings that are decoded together
GROUP_FILES = 64
_DEFAULT_MODEL = "espnet/powsm"


@dataclass(frozen=True)
class Emissions:
    """What the CTC head says in every frame.

    Attributes:
        log_probs: float32 (n_frames, n_tokens).
        times: (n_frames,) the middle of each frame, in seconds.
        tokens: the symbols of the columns; `<blank>` is among them.
    """

    log_probs: np.ndarray
    times: np.ndarray
    tokens: tuple[str, ...]


class Model:
    """A trained model with its tokenizer. Threads may share it; they take turns.

    Attributes:
        files: where its parts are, and how its training set was normalised.
        recogniser: the network with its tokenizer.
    """

    def __init__(self, files: ModelFiles, recogniser: Recogniser):
        self.files = files
        self.recogniser = recogniser
        self.min_samples = FrameGrid.of(recogniser.model).min_samples()
        # ESPnet's attention keeps its weights between two lines of one call
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"powsm.load({self.files.source!r})"

    def __call__(self, audio, **how):
        """`transcribe`, shorter."""
        return self.transcribe(audio, **how)

    @overload
    def transcribe(self, audio: Audio, **how: object) -> Result: ...
    @overload
    def transcribe(self, audio: list | tuple, **how: object) -> list[Result]: ...

    def transcribe(
        self,
        audio,
        *,
        rate: int = SAMPLE_RATE,
        channel: str | None = "mix",
        task: str = "pr",
        lang: str = UNKNOWN,
        text: str | Sequence[str] | None = None,
        profile: Profile | str | Path | None = None,
        phones: str | Iterable[str] | None = None,
        times: bool = True,
    ):
        """Transcribe recordings of any length.

        Args:
            audio: a recording, see `powsm.decode.recordings.samples.speech_of`, or a
                list of them, which are decoded together.
            rate, channel: see `speech_of`.
            task: `pr asr g2p p2g`.
            lang: code or name of the language; `unk`: not known; `auto`: as the model
                hears it.
            text: what g2p (words) and p2g (IPA) read; of a list, one each.
            profile: how to decode, or the name or file of it; default: the best path
                of the CTC head for phones, the decoder alone and greedy for words; of a
                model without a decoder, the best path for both.
            phones: let only these phones out: a list, a language of training, or a
                file or folder, see `powsm.vocabulary.phone_sets.phone_set`.
            times: whether phones come with their times.

        Returns:
            A `Result`, or a list of them.

        Raises:
            AudioError: a recording cannot be read or used.
            PowsmError: the question makes no sense; the message says what to change.
        """
        question = self.question(task, lang, profile, phones, has_text=text is not None)
        many = isinstance(audio, list | tuple)
        recordings = list(audio) if many else [audio]
        if many and recordings and isinstance(recordings[0], int | float | np.number):
            raise AudioError("audio: a list of numbers; make it a NumPy array")
        texts = text if isinstance(text, list | tuple) else [text] * len(recordings)
        if len(texts) != len(recordings):
            raise PowsmError(
                f"text: {len(texts)} texts of {len(recordings)} recordings; expected "
                "one each"
            )
        results: list[Result] = []
        jobs: list[Job] = []
        for number, (one, its_text) in enumerate(zip(recordings, texts, strict=True)):
            name = f"audio[{number}]" if many else "audio"
            speech = speech_of(
                one,
                rate=rate,
                channel=channel,
                min_samples=self.min_samples,
                name=name,
                is_levelled=question.profile.level == "usual",
            )
            if isinstance(one, str | Path):
                name = Path(one).stem
            jobs.append(self.job(question, name, speech, its_text))
            if is_full(jobs):
                results += self.answer(question, jobs, with_times=times)
                jobs = []
        results += self.answer(question, jobs, with_times=times)
        return results if many else results[0]

    def align(
        self,
        audio: Audio,
        phones: str | Iterable[str] | None = None,
        *,
        rate: int = SAMPLE_RATE,
        channel: str | None = "mix",
        gop: bool = False,
        nearest: bool = False,
    ) -> list[Segment]:
        """When each phone is said, and where asked how well.

        Args:
            audio, rate, channel: see `transcribe`.
            phones: what is said, as IPA text or phones; None: what the CTC head says.
            gop: judge each phone, see `powsm.decode.pronunciation.goodness`.
            nearest: let the nearest phone by features stand for one that the model
                lacks; the segment's `nearest` names it.

        Raises:
            AlignError: phones that the model does not know, or more than fit.
            PowsmError: IPA that is none.
        """
        if phones is not None:
            phones = self.ipa(phones if isinstance(phones, str) else " ".join(phones))
        speech = self._speech(audio, rate, channel)
        return self.align_phones(speech, phones, gop=gop, nearest=nearest)

    def emissions(
        self,
        audio: Audio,
        tokens: Sequence[str] | None = None,
        *,
        rate: int = SAMPLE_RATE,
        channel: str | None = "mix",
    ) -> Emissions:
        """Log-probabilities of the CTC head in every frame, with times.

        Args:
            audio, rate, channel: see `transcribe`.
            tokens: those that are wanted; None: all, 100 kB a frame of 40,000 tokens.

        Raises:
            PowsmError: a token that the model does not have.
        """
        ids = self.recogniser.tokenizer.token_ids
        if tokens is None:
            tokens = self.recogniser.tokenizer.token_list
        if unknown := [token for token in tokens if token not in ids]:
            raise PowsmError(
                f"tokens: {' '.join(unknown[:5])} is not in this model's vocabulary"
            )
        speech = self._speech(audio, rate, channel)
        with self._lock:
            frames = ctc_frames(self.recogniser, speech, [ids[t] for t in tokens])
        grid = FrameGrid.of(self.recogniser.model)
        middles = [grid.seconds(t + 0.5) for t in range(len(frames))]
        return Emissions(frames.columns.numpy(), np.array(middles), tuple(tokens))

    def languages(
        self, audio: Audio, *, rate: int = SAMPLE_RATE, channel: str | None = "mix"
    ) -> dict[str, float]:
        """Codes of languages with their probabilities, likeliest first.

        Of a recording longer than a window it is the mean over its windows.
        """
        return self.heard_languages(self._speech(audio, rate, channel))

    # ------------------------------------- what the command line does step by step

    def question(
        self,
        task: str,
        lang: str,
        profile: Profile | str | Path | None,
        phones: str | Iterable[str] | None = None,
        *,
        has_text: bool = False,
    ) -> Question:
        """What is asked of recordings, checked as far as no recording is needed.

        A language that the model lacks, or that the profile does not use, is logged,
        and what is used instead goes into the results.
        """
        known = self.recogniser.languages()
        has_decoder = not self.recogniser.is_ctc_only
        return Question.of(known, task, lang, profile, phones, has_text, has_decoder)

    def job(
        self,
        question: Question,
        name: str,
        speech: Tensor | Recording,
        text: str | None = None,
        start_s: float = 0.0,
        window_s: float = WINDOW_S,
    ) -> Job:
        """A recording with what it is decoded with.

        Args:
            window_s: seconds that `answer` will encode in one stretch.

        Raises:
            PowsmError: its text is missing, or is not what the task reads.
        """
        job = Job(name, speech, question.lang_sym, self._prompt(question, text, name))
        job.check_prompt(question.profile, question.task, window_s)
        return Job(name, speech, self._heard(question, job), job.text_prev, start_s)

    def answer(
        self,
        question: Question,
        jobs: Sequence[Job],
        *,
        with_times: bool,
        window_s: float = WINDOW_S,
        overlap_s: float = OVERLAP_S,
    ) -> list[Result]:
        """The results of recordings, decoded together."""
        with self._lock:
            records = transcribe(
                self.recogniser,
                question.profile,
                question.task,
                jobs,
                window_s=window_s,
                overlap_s=overlap_s,
                with_times=with_times and question.task in PHONE_TASKS,
            )
        results = []
        for job, record in zip(jobs, records, strict=True):
            if question.profile.decode == "ctc" and not self.recogniser.is_ctc_only:
                record["lang_sym"] = UNKNOWN_LANG_SYM  # the head is given none
            results.append(Result.of(record, job.seconds + job.start_s))
        return results

    def heard_languages(
        self, speech: Speech, among: Sequence[str] = ()
    ) -> dict[str, float]:
        """See `languages`; of speech as `speech_of` gives it."""
        window = int(WINDOW_S * SAMPLE_RATE)
        begins = range(0, len(speech), window)
        if len(begins) > 1 and len(speech) - begins[-1] < SAMPLE_RATE:
            begins = begins[:-1]  # less than a second says little
        sums: dict[str, float] = {}
        for begin in begins:
            with self._lock, torch.inference_mode():
                stretch = [speech[begin : begin + window]]
                (found,) = self.recogniser.languages_of(stretch, among=among)
            for symbol, log_prob in found:
                code = symbol.strip("<>")
                sums[code] = sums.get(code, 0.0) + np.exp(log_prob) / len(begins)
        ranked = sorted(sums.items(), key=lambda item: -item[1])
        return {code: round(float(prob), 6) for code, prob in ranked}

    def align_phones(
        self,
        speech: Tensor | Recording,
        phones: Sequence[str] | None,
        *,
        gop: bool = False,
        nearest: bool = False,
    ) -> list[Segment]:
        """See `align`; of speech as `speech_of` gives it, and phones as of `ipa`."""
        with self._lock:
            return align(self.recogniser, speech, phones, gop=gop, nearest=nearest)

    def ipa(self, text: str, lang: str | None = None) -> tuple[str, ...]:
        """Phones of IPA in the form of training; they may be between slashes.

        Args:
            text: IPA.
            lang: ISO 639-3 of labels of a program, which get the allophones of English
                as those of training did; None: the phones are as they are written.

        Raises:
            PowsmError: what is no IPA, or no phones.
        """
        from powsm.phones.normaliser import Normaliser  # half a second, seldom asked

        policy = self.files.normaliser.get("policy", "strict")
        segmented = Normaliser(policy).segment(text.replace("/", " "), lang)
        if unknown := sorted(
            {drop.char for drop in segmented.dropped if drop.kind == "unknown"}
        ):
            raise PowsmError(f"{text!r}: {' '.join(unknown)} is no IPA")
        if not segmented.phones:
            raise PowsmError(f"{text!r}: no phones, expected IPA")
        return segmented.phones

    def _heard(self, question: Question, job: Job) -> str:
        if not question.hears_lang:
            return job.lang_sym
        profile, speech = question.profile, job.speech
        if profile.level == "usual":
            speech = at_usual_level(speech)
        heard = self.heard_languages(speech, profile.languages)
        return f"<{next(iter(heard))}>"

    def _speech(
        self, audio: Audio, rate: int, channel: str | None
    ) -> Tensor | Recording:
        return speech_of(
            audio, rate=rate, channel=channel, min_samples=self.min_samples
        )

    def _prompt(self, question: Question, text: str | None, name: str) -> str:
        """The text that prompts a recording, in the form that training had."""
        task = TASKS[question.task]
        is_asked = task.is_prompted and question.profile.prev == "gold"
        if not is_asked or not (text or "").strip():
            return NA_SYM
        if task.reads == PHONES:
            return to_slashed(self.ipa(text))
        code = question.lang_sym.strip("<>")
        policy = self.files.normaliser.get("text_policy", "powsm_fix")
        prompt = normalise_text(text, code, policy)
        if not prompt:
            raise PowsmError(f"{name}: nothing of the text {text!r} is a word")
        return prompt


def is_full(group: Sequence[Job]) -> bool:
    """Whether recordings are as many as are decoded together: each is an open file."""
    return len(group) >= GROUP_FILES or sum(p.seconds for p in group) >= GROUP_S


def load(
    model: str | Path = _DEFAULT_MODEL,
    device: str | None = None,
    model_file: Path | None = None,
) -> Model:
    """Load a model to transcribe with.

    Args:
        model: experiment folder, packed folder or archive, or Hub tag.
        device: `cpu`, `cuda`; default: a GPU where there is one.
        model_file: other weights than the averaged or packed ones.

    Raises:
        CheckpointError: there is no such model, or it does not load as it is.
        PowsmError: there is no such device.
    """
    device = device_of(device)
    files = find_model(model, model_file)
    return Model(files, Recogniser.load(files, device))
