"""What a trained model makes of a batch of utterances: one record each."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from powsm.audio import (
    SAMPLE_RATE,
    WINDOW_S,
)
from powsm.decode.beams import Hypothesis
from powsm.decode.ctc_paths import CTCHypothesis, ctc_greedy, ctc_prefix_beam
from powsm.decode.profile import FIRST_PASS, DecodeError, Profile, SearchOptions
from powsm.decode.recogniser import Recogniser
from powsm.decode.search import Searcher
from powsm.languages import UNKNOWN_LANG_SYM
from powsm.tasks import (
    DECODED_TASKS,
    LID,
    NA_SYM,
    NO_TIME_SYM,
    TASKS,
    parse_output,
    task_of,
)
from powsm.vocabulary.phone_sets import barred_tokens, phones_of_lang

log = logging.getLogger(__name__)

N_BEST_LANGUAGES = 5  # written for each utterance

_Spell = Callable[[Iterable[int]], list[str]]  # token ids -> tokens


@dataclass(frozen=True)
class Item:
    """One thing to decode."""

    utt_id: str
    audio: str
    n_samples: int
    lang_sym: str
    text_prev: str


def items(folder: Path, task: str) -> list[Item]:
    """What a dump folder has for a task.

    A task without examples of its own takes the audio of all utterances.
    """
    # its numba is not loaded for a recording that is in no folder
    from powsm.prepare.index import ExampleIndex

    index = ExampleIndex(folder)
    found = []
    for utt in range(len(index)):
        examples = index.examples(utt)
        if not DECODED_TASKS[task].is_trained:
            examples = examples[:1]
        for example in examples:
            if task_of(example["id"]) == task or not DECODED_TASKS[task].is_trained:
                found.append(
                    Item(
                        utt_id=index.utt_id(utt),
                        audio=index.audio(utt),
                        n_samples=int(index.n_samples[utt]),
                        lang_sym=parse_output(example["text"]).lang_sym,
                        text_prev=example["text_prev"],
                    )
                )
    return found


def cut_batches(
    todo: Sequence[Item], profile: Profile, seconds: float
) -> list[list[Item]]:
    """Batches by length, longest first, of at most `seconds` with padding."""
    window = int(WINDOW_S * SAMPLE_RATE) if profile.window == "published" else 0
    most = seconds * SAMPLE_RATE
    batches: list[list[Item]] = []
    for item in sorted(todo, key=lambda i: (-i.n_samples, i.utt_id)):
        longest = max(batches[-1][0].n_samples if batches else 0, window)
        if batches and longest * (len(batches[-1]) + 1) <= most:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


def decode_batch(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    batch: Sequence[Item],
    speech: Sequence[torch.Tensor],
) -> list[dict]:
    """Decode one batch; a record per item, as written to `hyp.jsonl`.

    A predicted prompt is found on the same encoder output, and kept in the record as
    `text_prev`. When the memory of the device is not enough, the batch is decoded in
    halves.

    Raises:
        DecodeError: the memory is not enough for one utterance, or the model lacks a
            language or the phones that the profile names, or its CTC head says none.
    """
    try:
        return _decode(recogniser, profile, task, batch, speech)
    except torch.OutOfMemoryError as err:
        if len(batch) == 1:
            raise DecodeError(
                f"{batch[0].utt_id}: {len(speech[0]) / SAMPLE_RATE:.1f} s of audio do "
                "not fit the memory of the device; use a smaller beam, or "
                "`powsm transcribe`, which cuts recordings into windows"
            ) from err
    # outside the except block, where the failed tensors are no longer held
    torch.cuda.empty_cache()
    log.warning("memory is not enough for %d utterances; halving", len(batch))
    middle = len(batch) // 2
    return [
        record
        for part in (slice(middle), slice(middle, None))
        for record in decode_batch(recogniser, profile, task, batch[part], speech[part])
    ]


@torch.inference_mode()
def _decode(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    batch: Sequence[Item],
    speech: Sequence[torch.Tensor],
) -> list[dict]:
    if profile.reads_ctc:
        recogniser.check_ctc_says_phones()
    if profile.audio == "silence":
        speech = [torch.zeros_like(samples) for samples in speech]
    records = [
        record_of(recogniser, profile, task, item.utt_id, item.lang_sym)
        | {"seconds": round(item.n_samples / SAMPLE_RATE, 3)}
        for item in batch
    ]
    recogniser.check(profile)
    if recogniser.is_ctc_only:
        with recogniser.precision(profile.dtype):
            return _decode_by_ctc(recogniser, profile, task, batch, speech, records)
    with recogniser.precision(profile.dtype):
        memory, lens = recogniser.encode(speech, profile.window)
        if task == LID or profile.lang == "detected":
            found = recogniser.detect_languages(memory, lens, profile.languages)
            _keep_languages(records, found, task)
        if task == LID:
            return records
        if profile.decode == "ctc":
            barred = barred_phones(recogniser, profile.phones)
            found = []
            for log_probs in recogniser.ctc_tables(memory):
                theirs = lens[len(found) : len(found) + len(log_probs)]
                found += _read_ctc(
                    recogniser, profile.search, barred, log_probs, theirs
                )
        else:
            prompts = [item.text_prev for item in batch]
            found = _prompt_and_search(
                recogniser, profile, task, (memory, lens), records, prompts
            )
    return _with_hypotheses(recogniser, profile, records, found)


def record_of(
    recogniser: Recogniser, profile: Profile, task: str, utt_id: str, lang_sym: str
) -> dict:
    """What a record says of an utterance before it is heard."""
    return {
        "utt_id": utt_id,
        "lang_sym": lang_sym if profile.lang == "own" else profile.lang,
        "task_sym": f"<{task}>",
        "profile": profile.digest(),
        "weights": recogniser.weights,
    }


def _keep_languages(
    records: list[dict], languages: list[list[tuple[str, float]]], task: str
) -> None:
    """Put detected languages, likeliest first, into records; lid writes them."""
    for record, best in zip(records, languages, strict=True):
        record["lang_sym"] = best[0][0]
        if task == LID:
            record["text"] = best[0][0]
            record["languages"] = {
                sym: round(score, 4) for sym, score in best[:N_BEST_LANGUAGES]
            }


def _keep_blocks(
    recogniser: Recogniser,
    blocks: Sequence[int],
    records: list[dict],
    heads: dict[int, torch.Tensor],
    lens: torch.Tensor,
) -> None:
    """Put what further heads say, by the number of their block, into records."""
    tokens, blank = recogniser.tokenizer.tokens, recogniser.model.blank_id
    for block in blocks:
        found = ctc_greedy(heads[block], lens, blank=blank)
        for record, hyp in zip(records, found, strict=True):
            record.setdefault("blocks", {})[str(block)] = _text(hyp, tokens)


def _with_hypotheses(
    recogniser: Recogniser,
    profile: Profile,
    records: list[dict],
    hypotheses: Sequence[Sequence[Hypothesis | CTCHypothesis]],
) -> list[dict]:
    """Records with what was decoded for each, best first."""
    tokens = recogniser.tokenizer.tokens
    for record, hyps in zip(records, hypotheses, strict=True):
        best = _described(hyps[0], tokens) if hyps else _NO_HYPOTHESIS
        record |= best
        if profile.search.nbest > 1:
            record["nbest"] = [_described(hyp, tokens) for hyp in hyps]
    return records


def _decode_by_ctc(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    batch: Sequence[Item],
    speech: Sequence[torch.Tensor],
    records: list[dict],
) -> list[dict]:
    """The same by a model without a decoder.

    Language, task and prompt enter its encoder, so that a language that is detected and
    a prompt that is predicted take an encoder pass of their own.
    """
    if task == LID or profile.lang == "detected":
        asked = "pr" if task == LID else task
        detected = recogniser.languages_of(
            speech, profile.window, profile.languages, asked
        )
        _keep_languages(records, detected, task)
    if task == LID:
        return records
    langs = [record["lang_sym"] for record in records]

    def read(
        task: str, texts: list[str], barred: Sequence[int], options: SearchOptions
    ) -> list[list[CTCHypothesis]] | list[list[Hypothesis]]:
        heads, lens = recogniser.ctc_heads(
            speech, langs, task, texts, profile.window, profile.blocks
        )
        # of the last pass that there is: a prompt that is predicted takes one before
        _keep_blocks(recogniser, profile.blocks, records, heads, lens)
        log_probs = heads[max(heads)]
        if options.ctc_weight == 1:
            searcher = Searcher(recogniser.model, options, barred)
            prompts = [[recogniser.model.sos]] * len(batch)
            return searcher.search(log_probs, lens, prompts)
        return _read_ctc(recogniser, options, barred, log_probs, lens)

    texts = [item.text_prev for item in batch]
    hypotheses = _read_prompted(recogniser, profile, task, records, texts, read)
    return _with_hypotheses(recogniser, profile, records, hypotheses)


def _prompt_and_search(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    encoded: tuple[torch.Tensor, torch.Tensor],
    records: list[dict],
    texts: list[str],
) -> list[list[Hypothesis]]:
    """Search with the prompts that the profile asks for; `texts` are the gold ones."""

    def search(
        task: str, texts: list[str], barred: Sequence[int], options: SearchOptions
    ) -> list[list[Hypothesis]]:
        prompts = [
            recogniser.prompt(record["lang_sym"], task, text)
            for record, text in zip(records, texts, strict=True)
        ]
        searcher = Searcher(recogniser.model, options, barred)
        return searcher.search(*encoded, prompts)

    return _read_prompted(recogniser, profile, task, records, texts, search)


def _read_prompted(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    records: list[dict],
    texts: list[str],
    read: Callable,
) -> list[list[Hypothesis]] | list[list[CTCHypothesis]]:
    """Read with the prompts that the profile asks for.

    Args:
        records: get the prompts that were predicted.
        texts: the gold prompts.
        read: hypotheses of (task, prompts, barred phones, options of the search).
    """
    if profile.prev != "gold":
        texts = [NA_SYM] * len(records)
    if profile.prev == "predicted":
        tokens = recogniser.tokenizer.tokens
        options = profile.first_search or profile.search
        # words come first where phones are barred
        first = read(FIRST_PASS[task], texts, (), options)
        texts = [_text(hyps[0], tokens) or NA_SYM if hyps else NA_SYM for hyps in first]
        for record, text in zip(records, texts, strict=True):
            record["text_prev"] = text
    return read(task, texts, barred_phones(recogniser, profile.phones), profile.search)


def _read_ctc(
    recogniser: Recogniser,
    options: SearchOptions,
    barred: Sequence[int],
    log_probs: torch.Tensor,
    lens: torch.Tensor,
) -> list[list[CTCHypothesis]]:
    model = recogniser.model
    allowed = torch.ones(log_probs.size(-1), dtype=torch.bool)
    allowed[[*barred, model.eos]] = False
    how = {"blank": model.blank_id, "allowed": allowed if barred else None}
    if options.beam_size == 1:
        return [[hyp] for hyp in ctc_greedy(log_probs, lens, **how)]
    found = ctc_prefix_beam(log_probs, lens, beam_size=options.beam_size, **how)
    return [hyps[: options.nbest] for hyps in found]


def barred_phones(recogniser: Recogniser, phones: str | tuple[str, ...]) -> list[int]:
    """Token ids that `Profile.phones` rules out.

    Raises:
        PhoneSetError: training knew no such language, or the model no such phone.
    """
    if phones == "all":
        return []
    tokenizer = recogniser.tokenizer
    if isinstance(phones, str):
        phones = phones_of_lang(tokenizer.folder, phones)
    barred = barred_tokens(tokenizer.token_list, phones)
    if not recogniser.is_ctc_only:
        return barred
    # language, task and no times are said before the phones, by a head where no prompt
    # says them: without them a phone would come in the place of each
    said = {UNKNOWN_LANG_SYM, NO_TIME_SYM, *(task.symbol for task in TASKS.values())}
    said.update(recogniser.languages())
    return [i for i in barred if tokenizer.token_list[i] not in said]


_NO_HYPOTHESIS = {"text": "", "tokens": [], "score": None}


def _described(hyp: Hypothesis | CTCHypothesis, tokens: _Spell) -> dict:
    found = {
        "text": _text(hyp, tokens),
        "tokens": tokens(hyp.tokens),
        "score": round(hyp.score, 4),
    }
    if isinstance(hyp, Hypothesis):
        found["scores"] = {name: round(x, 4) for name, x in hyp.scores.items()}
    return found


def _text(hyp: Hypothesis | CTCHypothesis, tokens: _Spell) -> str:
    return parse_output(tokens(hyp.tokens)).text
