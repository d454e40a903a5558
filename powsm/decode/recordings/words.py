"""Words and their phones: from IPA, by the model's own ear, or by espeak-ng.

The model's g2p says phones and no words. Which phones are whose is found by aligning
them with what each word is expected to sound like: by espeak-ng where it reads the
language, else by the letters that are IPA, else by the lengths of the words.
"""

import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import regex
from torch import Tensor

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.decode.profile import Profile
from powsm.decode.recordings.model import Model
from powsm.decode.recordings.question import AUTO, UNKNOWN, parse_lang, voice_for
from powsm.decode.recordings.samples import check_length
from powsm.errors import PowsmError
from powsm.score.distance import PhonePairs

_AROUND_S = 0.5  # seconds of a pause that are heard with the words beside it
_WORD = regex.compile(r"[\w'’](?:.*[\w'’])?")  # \w holds combining marks here


@dataclass(frozen=True)
class Word:
    """A word as it is written, and the phones that it is said with."""

    text: str
    phones: tuple[str, ...]


class WordsError(PowsmError):
    """A text of which no words and phones can be made."""


@dataclass(frozen=True)
class Reader:
    """How texts become words with phones.

    Attributes:
        model: says g2p, and how IPA is normalised.
        g2p: one of `powsm.decode.recordings.question.G2P`.
        lang: code or name of the language, or `unk`.
        profile: of the model's g2p; None: the decoder held to the sound by the CTC head
            (`joint`), whose phones can be aligned, or the last head where there is no
            decoder.
    """

    model: Model
    g2p: str = "model"
    lang: str = UNKNOWN
    profile: object = None

    def read(
        self, texts: Sequence[str], speech: Sequence[Tensor]
    ) -> list[tuple[Word, ...] | PowsmError]:
        """The words of each text, or why there are none.

        Args:
            texts: what is said in each stretch of speech.
            speech: the stretches, which only the model's g2p hears.
        """
        if self.g2p == "model":
            return self._heard(texts, speech)
        read = self._spoken if self.g2p == "espeak" else self._given
        return [_or_error(read, text) for text in texts]

    def _given(self, text: str) -> tuple[Word, ...]:
        """Words of IPA, split at white space."""
        words = []
        for part in text.split():
            bare = part.replace("/", "")
            if any(char.isalpha() for char in bare):
                words.append(Word(bare, self.model.ipa(part)))
        if not words:
            raise WordsError(f"{text!r}: no phones, expected IPA")
        return tuple(words)

    def _spoken(self, text: str) -> tuple[Word, ...]:
        """Words by espeak-ng, which reads the sentence and then each word by itself."""
        from powsm.corpora.small.espeak import text_to_ipa

        words = words_of(text)
        voice = voice_for("espeak", self.lang)
        ipa = text_to_ipa(" ".join(words), voice)
        sentence = self.model.ipa(ipa, parse_lang(self.lang))
        return shared_out(words, sentence, self._expected(words))

    def _heard(
        self, texts: Sequence[str], speech: Sequence[Tensor]
    ) -> list[tuple[Word, ...] | PowsmError]:
        """Words by the model's g2p, which hears the stretch, a long one in pieces."""
        model = self.model
        by_head = Profile("decode_ctc", decode="ctc", tasks=("g2p",))
        default = by_head if model.recogniser.is_ctc_only else "joint"
        profile = self.profile or default
        question = model.question("g2p", self.lang, profile, has_text=True)
        said: list[tuple[Word, ...] | PowsmError] = [()] * len(texts)
        asked, jobs = [], []
        for number, (text, stretch) in enumerate(zip(texts, speech, strict=True)):
            try:
                pieces = self._in_reach(text, stretch)
                name = f"{text[:30]!r}"
                for _, part in pieces:
                    check_length(part, model.min_samples, name)
                jobs += [
                    model.job(question, name, part, words) for words, part in pieces
                ]
                asked += [(number, words_of(words)) for words, _ in pieces]
            except PowsmError as err:
                said[number] = err
        results = model.answer(question, jobs, with_times=False)
        for (number, words), result in zip(asked, results, strict=True):
            found = _or_error(shared_out, words, result.phones, self._expected(words))
            if not isinstance(before := said[number], PowsmError):
                is_error = isinstance(found, PowsmError)
                said[number] = found if is_error else before + found
        return said

    def _in_reach(self, text: str, speech: Tensor) -> list[tuple[str, Tensor]]:
        """Pieces of a text with their sound, none longer than the model hears.

        Which word is said when comes of what the CTC head hears of all.
        """
        words = words_of(text)
        if len(speech) <= WINDOW_S * SAMPLE_RATE:
            return [(text, speech)]
        heard = self.model.align_phones(speech, None)
        owned = shared_out(words, [s.phone for s in heard], self._expected(words))
        ends = [sum(len(w.phones) for w in owned[: n + 1]) for n in range(len(owned))]
        spans = [
            (heard[end - len(word.phones)].start, heard[end - 1].end)
            for word, end in zip(owned, ends, strict=True)
        ]
        pieces = []
        for first, end, start_s, stop_s in runs_of_words(spans):
            if stop_s - start_s > WINDOW_S:
                raise WordsError(
                    f"{words[first]!r} would take {stop_s - start_s:.0f} s; is it the "
                    "text of this recording? Align the segments of a tier"
                )
            part = speech[int(start_s * SAMPLE_RATE) : int(stop_s * SAMPLE_RATE)]
            pieces.append((" ".join(words[first:end]), part))
        return pieces

    def _expected(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """What each word sounds like, roughly; empty where nobody knows."""
        from powsm.corpora.small.espeak import EspeakError, text_to_ipa
        from powsm.phones.normaliser import Normaliser

        normaliser, voice = Normaliser(), None
        if parse_lang(self.lang) not in (UNKNOWN, AUTO):
            with suppress(EspeakError):  # which does not read the language
                voice = voice_for("espeak", self.lang)
        ipa = [text_to_ipa(word, voice) if voice else letters(word) for word in words]
        return [normaliser.segment(text).phones for text in ipa]


def _or_error(make, *arguments) -> tuple[Word, ...] | PowsmError:
    try:
        return make(*arguments)
    except PowsmError as err:
        return err


def words_of(text: str) -> list[str]:
    """The words of a text without the punctuation around them.

    Raises:
        WordsError: there are none.

    >>> words_of("Don’t – stop, (please)!")
    ['Don’t', 'stop', 'please']
    """
    found = [_WORD.search(part) for part in text.split()]
    words = [match[0] for match in found if match and regex.search(r"\w", match[0])]
    if not words:
        raise WordsError(f"nothing of the text {text!r} is a word")
    return words


def letters(word: str) -> str:
    """The letters of a word without their accents, which are IPA in part.

    >>> letters("Però")
    'pero'
    """
    plain = unicodedata.normalize("NFD", word.casefold())
    return "".join(char for char in plain if char.isalpha())


def shared_out(
    words: Sequence[str], phones: Sequence[str], expected: Sequence[Sequence[str]]
) -> tuple[Word, ...]:
    """Phones of a sentence, each given to a word; every word gets one or more.

    Args:
        words: of the sentence.
        phones: of the sentence.
        expected: what each word sounds like, roughly.

    Raises:
        WordsError: fewer phones than words.

    >>> said = shared_out(["the", "apple"], list("ðæpl"), [list("ðə"), list("apl")])
    >>> [(word.text, "".join(word.phones)) for word in said]
    [('the', 'ð'), ('apple', 'æpl')]
    """
    if len(phones) < len(words):
        raise WordsError(
            f"{len(phones)} phones are said for the {len(words)} words of "
            f"{' '.join(words)[:60]!r}; is it the text of this recording?"
        )
    if all(expected):
        cuts = _cuts_by_sound(phones, expected)
    else:
        ends = [len("".join(words[: n + 1])) for n in range(len(words))]
        cuts = [round(len(phones) * end / ends[-1]) for end in ends[:-1]]
    bounds = [0]
    for n, cut in enumerate(cuts, 1):
        most = len(phones) - (len(words) - n)
        bounds.append(min(max(cut, bounds[-1] + 1), most))
    bounds.append(len(phones))
    return tuple(
        Word(word, tuple(phones[start:end]))
        for word, start, end in zip(words, bounds[:-1], bounds[1:], strict=True)
    )


def runs_of_words(
    spans: Sequence[tuple[float, float]], most_s: float = WINDOW_S
) -> list[tuple[int, int, float, float]]:
    """Runs of words that are said within `most_s` seconds, cut in the longest pauses.

    Args:
        spans: start and end of each word in seconds, in order.

    Returns:
        (first word, end, start, end in seconds) of each run, which together hold every
        word. A run has a little of the pause around it, and is longer than `most_s`
        only where one word is.

    >>> runs_of_words([(0.0, 1.0), (1.0, 2.0), (3.0, 4.0), (4.2, 5.0)], most_s=4.0)
    [(0, 2, 0.0, 2.5), (2, 4, 2.5, 5.5)]
    """
    n = len(spans)

    def edge(word: int) -> tuple[float, float]:
        """Where a run that ends before a word stops, and one from it on begins."""
        before = spans[word - 1][1] if word else 0.0
        after = spans[word][0] if word < n else before + 2 * _AROUND_S
        half = min((after - before) / 2, _AROUND_S)
        return before + half, after - half

    runs, first = [], 0
    while first < n:
        start_s, end = edge(first)[1], first + 1
        while end < n and edge(end + 1)[0] - start_s <= most_s:
            end += 1
        if end < n:
            half = range((first + end) // 2 + 1, end + 1)
            end = max(half, key=lambda word: spans[word][0] - spans[word - 1][1])
        runs.append((first, end, start_s, edge(end)[0]))
        first = end
    return runs


def _cuts_by_sound(
    phones: Sequence[str], expected: Sequence[Sequence[str]]
) -> list[int]:
    """Where each word but the first begins, by the cheapest alignment."""
    whole = [phone for word in expected for phone in word]
    owners = [n for n, word in enumerate(expected) for _ in word]
    (steps,) = PhonePairs(hyp=[list(phones)], ref=[whole]).alignments("feature")
    cuts = [len(phones)] * (len(expected) - 1)
    at_ref = at_hyp = 0
    for step in steps:
        if step.ref is not None:
            owner = owners[at_ref]
            # what is said before a word's first sound belongs to the word before
            for word in range(1, owner + 1):
                cuts[word - 1] = min(cuts[word - 1], at_hyp)
            at_ref += 1
        at_hyp += step.hyp is not None
    return cuts
