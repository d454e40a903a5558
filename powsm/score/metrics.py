"""Score the output of any system: phones, orthography, language.

Phones (`score_phones`):

- `PER`: edits over reference phones; substitutions, deletions, insertions apart.
- `PFER`: feature edit distance over reference phones. This is what the tables of
  POWSM, PRiSM and PhoneticXEUS hold, and PanPhon's `feature_error_rate` (`FER`).
- `PFER_chance`: the same hypotheses against other utterances' references.
- `PFER_hamming`: the same with the Hamming distance, as the POWSM paper words it
  (a gap costs 1, each differing feature 1/24).
- `mean_hamming`: Hamming distance an utterance, in phones. ZIPA and MultIPA call this
  PFER; it grows with the length of utterances and is not a percentage.

Text (`score_text`): `WER` and `CER` by jiwer. Languages (`score_lid`): `accuracy`.
All return the counts of each utterance, of which `powsm.score.rates` makes rates.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import jiwer
import numpy as np

from powsm.files.transcripts import TranscriptError
from powsm.languages import lang_code
from powsm.phones.orthography import DEFAULT_POLICY, joins
from powsm.phones.unknown import Unknown, judge_unknown
from powsm.score.chance import chance_costs
from powsm.score.distance import PhonePairs
from powsm.score.phone_reader import PRISM, PhoneReader
from powsm.score.rates import (
    EDITS,
    LID_RATES,
    PHONE_RATES,
    TEXT_RATES,
    ScoreError,
    Scores,
    aligned,
    check_same_ids,
)
from powsm.tasks import strip_prompt

log = logging.getLogger(__name__)

Texts = Mapping[str, str] | Sequence[str]

_SHOWN = 5  # symbols named in a warning
_EDITS = (
    "substitute",
    "delete",
    "insert",
)  # jiwer's names, in the order of our columns


def score_phones(
    *,
    hyp: Texts,
    ref: Texts,
    langs: Texts | None = None,
    speakers: Texts | None = None,
    cleaning: str = "strict",
    phone_map: str | None = None,
    hyp_phone_map: str | None = None,
    max_unknown_rate: float = 1.0,
) -> Scores:
    """Score phone transcripts of any system.

    Args:
        hyp: transcripts by utt_id, in IPA or this project's slashes; or a list.
        ref: the same utterances.
        langs: language of each utterance, for the breakdown.
        speakers: speaker of each utterance, for intervals over speakers.
        cleaning: how text becomes phones: `strict` (default), another policy of
            `powsm.phones.normaliser`, or `prism` to compare with published tables; see
            `PhoneReader`.
        phone_map: the references are not IPA but in this alphabet, such as "timit".
        hyp_phone_map: the same for the hypotheses.
        max_unknown_rate: largest share of the characters of either side that may be
            unknown. `prism` compares with published scores, which skip any number.

    Returns:
        Counts of every utterance with the rates `PHONE_RATES`.

    Raises:
        ScoreError: not the same utterances on both sides, or none at all.
        TranscriptError: a symbol that a phone map does not have.
        UnknownSymbolsError: too many characters of one side are in no phone.

    >>> scores = score_phones(hyp=["bat", "pa"], ref=["pat", ""])
    >>> scores.counts["insertions"], scores.counts["substitutions"]
    (2, 1)
    >>> round(scores.value("PER"), 6)  # 3 edits, 3 reference phones
    100.0
    """
    utt_ids, hyps, refs = _paired(hyp, ref)
    hyp_reader = PhoneReader(cleaning, hyp_phone_map)
    ref_reader = PhoneReader(cleaning, phone_map)
    hyp_phones, unknown_hyp = _read_all(hyp_reader, utt_ids, hyps, "hypothesis")
    ref_phones, unknown_ref = _read_all(ref_reader, utt_ids, refs, "reference")
    if cleaning != PRISM:
        judge_unknown(unknown_hyp, "hypotheses", max_unknown_rate)
        judge_unknown(unknown_ref, "references", max_unknown_rate)
    pairs = PhonePairs(hyp=hyp_phones, ref=ref_phones)
    substitutions, deletions, insertions = pairs.edit_counts().T
    codes = _langs(langs, utt_ids)
    chance_cost, n_chance = chance_costs(hyp_phones, ref_phones, codes)
    return Scores(
        utt_ids=utt_ids,
        columns={
            "n_utts": np.ones(len(utt_ids), np.int64),
            "n_ref": pairs.n_ref,
            "n_hyp": pairs.n_hyp,
            "substitutions": substitutions,
            "deletions": deletions,
            "insertions": insertions,
            "feature_cost": pairs.costs("feature"),
            "hamming_cost": pairs.costs("hamming"),
            "chance_cost": chance_cost,
            "n_chance": n_chance,
        },
        rates=PHONE_RATES,
        langs=codes,
        speakers=None if speakers is None else aligned(speakers, utt_ids, "speakers"),
        unknown_hyp=unknown_hyp,
        unknown_ref=unknown_ref,
    )


def score_text(
    *,
    hyp: Texts,
    ref: Texts,
    langs: Texts | None = None,
    speakers: Texts | None = None,
    text_policy: str = DEFAULT_POLICY,
) -> Scores:
    """Score orthographic transcripts: case and punctuation count.

    Both sides are put into the Unicode form of the policy and runs of white space
    become one space. A space is a character of CER, but not in a language that the
    policy writes without spaces: there, they are removed and words are not counted.

    Args:
        hyp: transcripts by utt_id, or a list.
        ref: the same utterances.
        langs: language of each utterance.
        speakers: speaker of each utterance, for intervals over speakers.
        text_policy: how the references were written; see `powsm.phones.orthography`.

    Returns:
        Counts of every utterance with the rates `TEXT_RATES`.

    Raises:
        ScoreError: not the same utterances on both sides, or none at all.
        ValueError: the policy is not known.

    >>> scores = score_text(hyp=["the cat", "你号"], ref=["a cat", "你 好"],
    ...                     langs=["eng", "cmn"])
    >>> scores.value("WER"), scores.counts["n_chars"]
    (50.0, 7)
    """
    utt_ids, hyps, refs = _paired(hyp, ref)
    codes = _langs(langs, utt_ids)
    unspaced = [joins(code, text_policy) for code in codes or [None] * len(utt_ids)]
    hyps = [tidy_text(text, join) for text, join in zip(hyps, unspaced, strict=True)]
    refs = [tidy_text(text, join) for text, join in zip(refs, unspaced, strict=True)]
    words = np.zeros((len(utt_ids), 3), np.int64)
    if spaced := [row for row, join in enumerate(unspaced) if not join]:
        words[spaced] = _edit_counts(
            jiwer.process_words(
                [refs[row] for row in spaced], [hyps[row] for row in spaced]
            ).alignments
        )
    chars = _edit_counts(jiwer.process_characters(refs, hyps).alignments)
    columns = {
        "n_utts": np.ones(len(utt_ids), np.int64),
        "n_word_utts": np.array([not join for join in unspaced], np.int64),
        "n_words": np.array(
            [0 if j else len(r.split()) for r, j in zip(refs, unspaced, strict=True)]
        ),
        "n_chars": np.array([len(ref) for ref in refs]),
    }
    for kind, counts in (("word", words), ("char", chars)):
        for edit, column in zip(EDITS, counts.T, strict=True):
            columns[f"{kind}_{edit}"] = column
    return Scores(
        utt_ids=utt_ids,
        columns=columns,
        rates=TEXT_RATES,
        langs=codes,
        speakers=None if speakers is None else aligned(speakers, utt_ids, "speakers"),
    )


def tidy_text(text: str, join: bool) -> str:
    """A text as it is compared: in the form in which both policies write, NFKC.

    Args:
        text: perhaps behind the symbols of its prompt.
        join: of a language without spaces, see `powsm.phones.orthography.joins`.
    """
    words = unicodedata.normalize("NFKC", strip_prompt(text)).split()
    return ("" if join else " ").join(words)


def score_lid(
    *,
    hyp: Texts,
    ref: Texts,
    likeliest: Mapping[str, Sequence[str]] | Sequence[Sequence[str]] | None = None,
    speakers: Texts | None = None,
) -> Scores:
    """Score language identification.

    Args:
        hyp: detected language of each utterance: a code, a name or a symbol (`<eng>`).
        ref: its language.
        likeliest: the five likeliest languages of each utterance, where known.
        speakers: speaker of each utterance, for intervals over speakers.

    Returns:
        Counts with the rate `accuracy`, and `top_5` if `likeliest` is given, by
        language of the reference.

    Raises:
        ScoreError: not the same utterances on both sides, none at all, or a reference
            without a language.
    """
    utt_ids, hyps, refs = _paired(hyp, ref)
    langs = tuple(_code(lang) for lang in refs)
    if "" in langs:
        raise ScoreError(
            f"{langs.count('')} of {len(langs)} references name no language, such as "
            f"that of {utt_ids[langs.index('')]}; give it, or leave the utterance out"
        )
    right = [_code(h) == lang for h, lang in zip(hyps, langs, strict=True)]
    columns = {
        "n_utts": np.ones(len(utt_ids), np.int64),
        "n_correct": np.array(right, np.int64),
    }
    rates = LID_RATES
    if likeliest is not None:
        rates = (*LID_RATES, "top_5")
        among = [
            lang in map(_code, five)
            for five, lang in zip(
                aligned(likeliest, utt_ids, "likeliest"), langs, strict=True
            )
        ]
        columns["n_in_top_5"] = np.array(among, np.int64)
    return Scores(
        utt_ids=utt_ids,
        columns=columns,
        rates=rates,
        langs=langs,
        speakers=None if speakers is None else aligned(speakers, utt_ids, "speakers"),
    )


def lid_confusion(*, hyp: Texts, ref: Texts) -> Counter[tuple[str, str]]:
    """How often each language was taken for which, by (reference, hypothesis).

    >>> lid_confusion(hyp=["<deu>", "<nld>", "<deu>"], ref=["deu", "deu", "deu"])
    Counter({('deu', 'deu'): 2, ('deu', 'nld'): 1})
    """
    _, hyps, refs = _paired(hyp, ref)
    return Counter(zip(map(_code, refs), map(_code, hyps), strict=True))


def _paired(hyp: Texts, ref: Texts) -> tuple[tuple[str, ...], list[str], list[str]]:
    """Ids in the order of the references, hypotheses, references."""
    if isinstance(hyp, Mapping) != isinstance(ref, Mapping):
        raise ScoreError("give hyp and ref both by utt_id or both as lists")
    if isinstance(hyp, str) or isinstance(ref, str):
        raise ScoreError("found one text; give a list of texts, or a dict by utt_id")
    if not isinstance(ref, Mapping):
        hyp, ref = list(hyp), list(ref)
        if len(hyp) != len(ref):
            raise ScoreError(f"{len(hyp)} hypotheses for {len(ref)} references")
        hyp, ref = ({str(i): x for i, x in enumerate(side)} for side in (hyp, ref))
    if not ref:
        raise ScoreError("no utterance to score; a set without any has no score")
    check_same_ids(hyp, ref, "hyp", "ref")
    for name, texts in (("hyp", hyp), ("ref", ref)):
        for utt_id, text in texts.items():
            if not isinstance(text, str):
                raise ScoreError(f"{name} of {utt_id}: found {text!r}, expected text")
    return tuple(ref), [hyp[utt_id] for utt_id in ref], list(ref.values())


def _code(lang: str) -> str:
    """ISO 639-3 where the spelling is known, else as it is."""
    lang = lang.strip().strip("<>")
    return lang_code(lang) or lang


def _langs(langs: Texts | None, utt_ids: tuple[str, ...]) -> tuple[str, ...] | None:
    if langs is None:
        return None
    return tuple(_code(lang) for lang in aligned(langs, utt_ids, "langs"))


def _read_all(
    reader: PhoneReader, utt_ids: Sequence[str], texts: Sequence[str], side: str
) -> tuple[list[tuple[str, ...]], Unknown]:
    """Phones of every transcript, and what all of them lose."""
    phones, unknown = [], Unknown()
    n_texts_with_unknown = 0
    for utt_id, text in zip(utt_ids, texts, strict=True):
        text = strip_prompt(text)
        try:
            read = reader.read(text)
        except TranscriptError as err:
            raise TranscriptError(f"{side} {utt_id}: {err}") from err
        phones.append(read.phones)
        n_characters = len(text) - text.count(" ") - text.count("/")
        unknown.count(utt_id, n_characters, read.losses, read.unknown)
        n_texts_with_unknown += bool(read.unknown)
    if n_texts_with_unknown:
        log.warning(
            "%d of %d %s texts hold %d unknown symbols, not scored: %s",
            n_texts_with_unknown,
            len(texts),
            side,
            unknown.n_unknown,
            unknown.top(_SHOWN),
        )
    return phones, unknown


def _edit_counts(alignments: Sequence[Sequence[jiwer.AlignmentChunk]]) -> np.ndarray:
    """Substitutions, deletions and insertions of each text, shape (n_texts, 3)."""
    counts = np.zeros((len(alignments), 3), np.int64)
    for row, chunks in enumerate(alignments):
        for chunk in chunks:
            if chunk.type in _EDITS:
                n_ref = chunk.ref_end_idx - chunk.ref_start_idx
                n_hyp = chunk.hyp_end_idx - chunk.hyp_start_idx
                counts[row, _EDITS.index(chunk.type)] += max(n_ref, n_hyp)
    return counts
