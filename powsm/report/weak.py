"""What the scores of an experiment cannot or should not be used for, in words."""

import math
from collections.abc import Sequence
from pathlib import Path

from powsm.corpora.table import CORPORA, TEST_PREFIX
from powsm.report.experiment import (
    Experiment,
    chance_of,
    decoded_otherwise,
    groups,
    other_normalisers,
)
from powsm.score.chance import NOTHING_SHARE
from powsm.score.decoded import HYP_FILE, DumpSet, decoded_sets
from powsm.score.results import RESULTS_FILE, Result, task_title

# When a score is called weak, in percent. These are not thresholds of the paper: an
# error rate above them means that a reader cannot use the output without correcting it.
WEAK = {"PER": 40.0, "WER": 50.0, "CER": 30.0}
WEAK_LID = 90.0
WEAK_SHARE = 0.5  # of the rate of chance, for a PFER
FEW_UNITS = 50  # intervals of fewer utterances or speakers are too narrow


def weaknesses(experiment: Experiment, dump: Path) -> list[str]:
    """Plain statements of what the numbers cannot or should not be used for."""
    sets = list(dict.fromkeys(r.set for r in experiment.results))
    remarks = _of_what_was_scored(experiment, dump, sets)
    for set_name, task in groups(experiment):
        metric = experiment.main_metric(set_name, task)
        rows = experiment.select(set=set_name, task=task, metric=metric)
        pooled = [r for r in rows if r.lang == "all"]
        for result in pooled:
            if metric == "PFER":
                remarks += _weak_phones(result, chance_of(experiment, result))
            elif metric == "accuracy":
                symbols = experiment.lang_symbols
                remarks += _weak_lid(result, rows, symbols)
            else:
                remarks += _weak_result(result)
        ctc = next((r for r in pooled if r.decode == "ctc"), None)
        worse = [
            f"{r.system} {r.value:.1f}"
            for r in pooled
            if ctc and r.decode != "ctc" and ctc.high < r.low
        ]
        if worse:
            remarks.append(
                f"{set_name}, {task_title(task)}: with the decoder, {metric} is worse "
                f"than the {ctc.value:.1f} of the CTC head alone "
                f"({', '.join(worse)}): the decoder has not learned to follow the "
                "audio well."
            )
        remarks += _uneven_languages(rows, pooled, set_name, task)
    for set_name in sets:
        remarks += _weak_set(experiment, dump, set_name)
    if not experiment.history:
        remarks.append("No training history was found: nothing is said of convergence.")
    elif _still_falling(experiment.history):
        remarks.append(
            "The validation loss was lowest at the last epoch: more training is likely "
            "to help."
        )
    return list(dict.fromkeys(remarks))


def _of_what_was_scored(
    experiment: Experiment, dump: Path, sets: Sequence[str]
) -> list[str]:
    """What keeps scores from comparing with others."""
    remarks = [
        f"{set_name}: its phones were made with another phone map or other rules than "
        "those of scoring; run stages 4 to 13 again before comparing."
        for set_name in other_normalisers(dump, sets)
    ]
    remarks += [
        f"{set_name}: an incomplete copy, without {' '.join(missing)}; its "
        "scores are no published ones."
        for set_name in sets
        if (missing := DumpSet(dump / set_name).missing)
    ]
    decodings = decoded_sets(experiment.path, sets)
    remarks += [
        f"{decoded.place} was decoded by an earlier version; run stages 12, 13 again."
        for decoded in decodings
        if decoded.is_of_earlier_version
    ]
    remarks += [
        f"{decoded.place} was decoded with other weights or settings than the newest; "
        "run stage 12 for it again before comparing."
        for decoded in decoded_otherwise(decodings)
    ]
    scored_at = (experiment.path / RESULTS_FILE).stat().st_mtime_ns
    remarks += [
        f"{decoded.place} was decoded after the scores here; run stage 13 again."
        for decoded in decodings
        if (decoded.folder / HYP_FILE).stat().st_mtime_ns > scored_at
    ]
    if cleanings := sorted({r.cleaning for r in experiment.results} - {""}):
        remarks.append(
            f"Phones were read by the cleaning {' '.join(cleanings)}, not by the "
            "policies of the sets; scores without it do not compare."
        )
    return remarks


def _where(result: Result) -> str:
    name = task_title(result.task)
    return f"{result.set}, {name}" + (f", {result.system}" if result.decode else "")


def _weak_phones(result: Result, chance: Result | None) -> list[str]:
    """How much of the way from chance to the reference a system went."""
    where = f"{_where(result)}: PFER {result.value:.1f}"
    if chance is None:
        # of one utterance there is no other reference
        again = "; run stage 13 again" * (result.n_utts > 1)
        return [
            f"{where} without the rate of chance beside it{again}: alone it does not "
            "say whether anything was recognised."
        ]
    beside = f"other utterances' references give {chance.value:.1f}"
    if result.value > NOTHING_SHARE * chance.value:
        return [f"{where}, and {beside}: chance, nothing was recognised."]
    if result.high >= chance.low:  # false where there are too few for an interval
        return [f"{where}, and {beside}: not certainly better than chance."]
    if result.value > WEAK_SHARE * chance.value:
        return [
            f"{where} is more than half of chance ({beside}); the output is not usable "
            "as it is."
        ]
    return []


def _weak_lid(
    result: Result, rows: Sequence[Result], symbols: frozenset[str]
) -> list[str]:
    """Accuracy over the languages that the model can name, and the ones it cannot."""
    by_lang = [r for r in rows if r.system == result.system and r.lang != "all"]
    if not symbols or not by_lang:
        known, unknown = [result], []
    else:
        known = [r for r in by_lang if f"<{r.lang}>" in symbols]
        unknown = [r for r in by_lang if f"<{r.lang}>" not in symbols]
    lines = []
    if unknown:
        lines.append(
            f"{_where(result)}: {sum(r.n_utts for r in unknown)} utterances are in "
            f"languages that the model has no symbol for, and cannot be right: "
            f"{' '.join(r.lang for r in unknown)}."
        )
    if known:
        n_utts = sum(r.n_utts for r in known)
        accuracy = sum(r.value * r.n_utts for r in known) / n_utts
        if accuracy < WEAK_LID:
            among = " among the languages with a symbol" if unknown else ""
            lines.append(
                f"{_where(result)}: accuracy {accuracy:.1f}{among} is below "
                f"{WEAK_LID:.0f}."
            )
    return lines


def _weak_result(result: Result) -> list[str]:
    where = _where(result)
    limit = WEAK.get(result.metric)
    if limit is None or result.value <= limit:
        return []
    is_lost = result.value > 2 * limit
    use = "is not usable as it is" if is_lost else "needs correction by hand"
    fault = f"{result.metric} {result.value:.1f} is above {limit:.0f}"
    return [f"{where}: {fault}; the output {use}."]


def _uneven_languages(
    rows: list[Result], pooled: list[Result], set_name: str, task: str
) -> list[str]:
    """Languages whose error is certainly above one and a half times the pooled one."""
    remarks = []
    for whole in pooled:
        if whole.metric == "accuracy":
            continue
        limit = 1.5 * whole.value
        worse = [
            f"{r.lang} {r.value:.1f}"
            for r in rows
            if r.system == whole.system and r.lang != "all" and r.low > limit
        ]
        if worse:
            remarks.append(
                f"{set_name}, {task_title(task)}, {whole.system}: far above the "
                f"pooled {whole.metric} of {whole.value:.1f}: {', '.join(worse)}."
            )
    return remarks


def _weak_set(experiment: Experiment, dump: Path, set_name: str) -> list[str]:
    remarks = []
    results = experiment.select(set=set_name)
    few = {r.lang for r in results if r.n_utts < FEW_UNITS} - {"all"}
    n_utts = max(r.n_utts for r in results)
    if n_utts < FEW_UNITS:
        remarks.append(
            f"{set_name}: only {n_utts} utterances; the intervals are too narrow."
        )
    elif few:
        remarks.append(
            f"{set_name}: fewer than {FEW_UNITS} utterances in "
            f"{' '.join(sorted(few))}; read single languages with care."
        )
    is_there = (dump / set_name).is_dir()
    if is_there and "speaker" in {r.unit for r in results}:
        n_speakers = len(set(DumpSet(dump / set_name).speakers.values()))
        if 1 < n_speakers < FEW_UNITS:  # one speaker has no interval
            remarks.append(
                f"{set_name}: only {n_speakers} speakers; the intervals over them are "
                "too narrow."
            )
    corpus = CORPORA.get(set_name.removeprefix(TEST_PREFIX))
    if corpus is not None and corpus.labels == "g2p":
        remarks.append(
            f"{set_name}: the reference phones were made by a G2P program from the "
            "orthography, so phone scores say how well the model imitates it, not how "
            "well it hears."
        )
    return remarks


def _still_falling(history: Sequence[dict]) -> bool:
    losses = [record["loss"] for record in history if "loss" in record]
    known = [loss for loss in losses if not math.isnan(loss)]
    return len(losses) > 1 and losses[-1:] == [min(known, default=None)]
