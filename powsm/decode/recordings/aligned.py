"""Words and phones of a recording with their times, and the files that hold them."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from torch import Tensor

from powsm.audio import SAMPLE_RATE
from powsm.audio_files import printable
from powsm.corpora.evaluation.textgrid import Interval
from powsm.decode.align_files import Segment, ctm, eaf, textgrid
from powsm.decode.recordings.model import Model
from powsm.decode.recordings.question import UNKNOWN, voice_for
from powsm.decode.recordings.result import ALIGNED_FORMS, FormatError
from powsm.decode.recordings.samples import Audio, speech_of
from powsm.decode.recordings.stretches import Recording
from powsm.decode.recordings.words import Reader, Word
from powsm.errors import PowsmError

WORDS, PHONES, CONFIDENCE = "words", "phones", "confidence"
NEAREST, GOP, GOP_FREE, RIVAL = "nearest", "gop", "gop_free", "rival"
_EXTRA = (NEAREST, GOP, GOP_FREE, RIVAL)  # of a phone, each only where there is one
_OWN_TIERS = (WORDS, PHONES, CONFIDENCE, *_EXTRA)
_SLACK_S = 0.05  # seconds that an annotator's last boundary may lie behind the end


@dataclass(frozen=True)
class Aligned:
    """When each word and phone of a recording is said.

    Attributes:
        name: of the recording.
        duration_s: of the recording.
        tiers: name -> segments. The tier that was aligned comes first where there was
            one, then `words`, which IPA of single phones does not have, and `phones`.
        weights: digest of the model.
        faults: the stretches that could not be aligned, and why.
    """

    name: str
    duration_s: float
    tiers: Mapping[str, Sequence[Segment]]
    weights: str
    faults: tuple[str, ...] = ()

    def to(self, form: str) -> str:
        """The text of a file; `form` is one of `ALIGNED_FORMS`."""
        if form not in ALIGNED_FORMS:
            raise FormatError(
                f"format {form!r}: expected one of {' '.join(ALIGNED_FORMS)}"
            )
        name = printable(self.name)
        if form == "ctm":
            return ctm(name, self.tiers[PHONES])
        if form == "csv":
            return self._csv()
        if form == "json":
            return self._json()
        tiers = {**self.tiers}
        for tier in (CONFIDENCE, *_EXTRA):
            said = [s for s in self.tiers[PHONES] if getattr(s, tier) is not None]
            if said or tier == CONFIDENCE:
                tiers[tier] = [replace(s, phone=_shown(s.row()[tier])) for s in said]
        if form == "eaf":
            return eaf(tiers)
        return textgrid(tiers, self.duration_s, name)

    def _csv(self) -> str:
        file = StringIO()
        writer = csv.writer(file, lineterminator="\n")
        rows = [s.row() for s in self.tiers[PHONES]]
        extra = [name for name in _EXTRA if any(name in row for row in rows)]
        writer.writerow(("tier", "start_s", "end_s", "label", "confidence", *extra))
        for tier, segments in self.tiers.items():
            for row in (s.row() for s in segments):
                known = (row[k] for k in ("start", "end", "phone", "confidence"))
                writer.writerow((tier, *known, *(row.get(name) for name in extra)))
        return file.getvalue()

    def _json(self) -> str:
        row = {
            "utt_id": printable(self.name),
            "duration_s": round(self.duration_s, 4),
            "tiers": {
                tier: [
                    {"label" if k == "phone" else k: v for k, v in s.row().items()}
                    for s in segments
                ]
                for tier, segments in self.tiers.items()
            },
            "weights": self.weights,
        }
        return json.dumps(row, ensure_ascii=False, indent=2) + "\n"


def align_words(
    model: Model,
    audio: Audio,
    text: str,
    *,
    lang: str = UNKNOWN,
    g2p: str = "model",
    rate: int = SAMPLE_RATE,
    channel: str | None = "mix",
    gop: bool = False,
    nearest: bool = False,
) -> Aligned:
    """When each word and phone of a text is said, as `powsm align` finds it.

    Args:
        model: of `powsm.load`.
        audio, rate, channel: see `powsm.decode.recordings.model.Model.transcribe`.
        text: words, or IPA with spaces between words.
        lang: code or name of the language.
        g2p: how words become phones: `model`, `espeak`, or `none` for IPA.
        gop, nearest: see `powsm.decode.recordings.model.Model.align`.

    Raises:
        AudioError: the recording cannot be read or used.
        PowsmError: text or language make no sense, or cannot be aligned.
    """
    voice_for(g2p, lang)
    how = {"rate": rate, "channel": channel, "min_samples": model.min_samples}
    speech = speech_of(audio, **how)
    name = Path(audio).stem if isinstance(audio, str | Path) else "audio"
    stretch = Interval(0.0, len(speech) / SAMPLE_RATE, text)
    how = {"gop": gop, "nearest": nearest}
    return align_recording(Reader(model, g2p, lang), name, speech, [stretch], **how)


def align_recording(
    reader: Reader,
    name: str,
    speech: Tensor | Recording,
    stretches: Sequence[Interval],
    tier: str | None = None,
    *,
    gop: bool = False,
    nearest: bool = False,
) -> Aligned:
    """Align what is said in stretches of a recording.

    Args:
        reader: how the texts become phones, and the model.
        name: of the recording.
        speech: the recording.
        stretches: what is said from when to when, in order.
        tier: name of the tier that holds them, which the result keeps; None: the text
            is of the whole recording.
        gop, nearest: see `powsm.decode.recordings.model.Model.align`.

    Raises:
        PowsmError: nothing could be aligned; says why of the first stretch.
    """
    duration_s = len(speech) / SAMPLE_RATE
    spans = [_span(stretch, len(speech)) for stretch in stretches]
    said = reader.read(
        [stretch.label for stretch in stretches],
        [speech[begin:end] for begin, end in spans],
    )
    words: list[Segment] = []
    phones: list[Segment] = []
    faults, first = [], None
    for stretch, (begin, end), its_words in zip(stretches, spans, said, strict=True):
        try:
            if begin == end:
                raise PowsmError("lies behind the end of the recording")
            if isinstance(its_words, PowsmError):
                raise its_words
            said_phones = [p for word in its_words for p in word.phones]
            found = reader.model.align_phones(
                speech[begin:end], said_phones, gop=gop, nearest=nearest
            )
        except PowsmError as err:
            first = first or err
            where = f"{stretch.start_s:.3f} to {stretch.end_s:.3f} s"
            faults.append(f"{where}: {err}")
            continue
        found = [_moved(s, begin / SAMPLE_RATE, end / SAMPLE_RATE) for s in found]
        phones += found
        words += _words(its_words, found)
    if not phones:
        raise PowsmError(f"{printable(name)}: {first or 'no text to align'}")
    tiers: dict[str, Sequence[Segment]] = {}
    if tier is not None:
        own = f"{tier} (given)" if tier in _OWN_TIERS else tier
        tiers[own] = [
            Segment(s.label, s.start_s, min(s.end_s, duration_s), 1.0)
            for s in stretches
            if s.start_s < duration_s
        ]
    if any(len(w.phones) > 1 for each in said if isinstance(each, tuple) for w in each):
        tiers[WORDS] = words
    tiers[PHONES] = phones
    weights = reader.model.recogniser.weights
    return Aligned(name, duration_s, tiers, weights, tuple(faults))


def _span(stretch: Interval, n_samples: int) -> tuple[int, int]:
    """First and last sample of a stretch; empty for one that is not inside."""
    begin = max(0, round(stretch.start_s * SAMPLE_RATE))
    end = round(stretch.end_s * SAMPLE_RATE)
    if end > n_samples + _SLACK_S * SAMPLE_RATE:
        return n_samples, n_samples
    return min(begin, n_samples), min(end, n_samples)


def _moved(segment: Segment, by_s: float, end_s: float) -> Segment:
    start, end = segment.start + by_s, min(segment.end + by_s, end_s)
    return replace(segment, start=round(start, 4), end=round(end, 4))


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def _words(words: Sequence[Word], phones: Sequence[Segment]) -> list[Segment]:
    """The words of phones, from the first phone of each to its last."""
    found, at = [], 0
    for word in words:
        own = phones[at : at + len(word.phones)]
        at += len(own)
        mean = round(sum(s.confidence for s in own) / len(own), 4)
        found.append(Segment(word.text, own[0].start, own[-1].end, mean))
    return found
