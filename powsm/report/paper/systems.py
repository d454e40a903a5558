"""Models as the tables see them: how they were trained, and the scores they have."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from powsm.formatting import markdown_table
from powsm.languages import lang_code
from powsm.model.find import find_model
from powsm.phones.orthography import normalise_text, whisper_basic
from powsm.report.paper.fill import (
    HISTORY,
    HOURS,
    TAKEN_FOR,
    Score,
    System,
    hyp_file,
    is_measured_otherwise,
)
from powsm.report.paper.plan import PlannedDecode, hours_by_lang
from powsm.report.paper.sets import TestSet
from powsm.report.paper.spec import Query, Table
from powsm.report.paper.training import Trained
from powsm.score.decoded import DecodedSet, DumpSet, decoded_sets
from powsm.score.metrics import lid_confusion, score_text
from powsm.score.rates import Scores
from powsm.score.results import HISTORY_FILE, read_history
from powsm.settings import is_number, load_yaml
from powsm.tasks import TEXT


def trained_of(exp: Path, model: str | None) -> Trained | None:
    """How an experiment, or a model found elsewhere, was trained; None: not known.

    A model that is named counts, whatever experiment its results are put into.
    """
    is_own = model is None or Path(model) == exp
    if is_own and (exp / "config.yaml").exists():
        return Trained.read(exp / "config.yaml")
    if model is None:
        return None
    files = find_model(model)
    return Trained.read(files.config_file, files.normaliser)


@dataclass(frozen=True)
class ExperimentScores:
    """What an experiment scores, by query; a callable for `System.score`.

    Attributes:
        exp: its folder.
        dump: `dump/raw`.
        sets: what is known of sets.
        planned: why a decoding is missing.
        is_baseline: a model of others: both sides go through Whisper's normaliser,
            as OWSM's recipes score.
    """

    exp: Path
    dump: Path
    sets: Mapping[str, TestSet]
    planned: Sequence[PlannedDecode] = ()
    is_baseline: bool = False

    def __call__(self, query: Query) -> Scores | Score | str:
        if query.metric.startswith(HISTORY):
            return last_of_history(self.exp, query.metric.removeprefix(HISTORY))
        path = hyp_file(self.exp, query, self.sets)
        if path is None:
            return self._why_not(query)
        decoded = DecodedSet(path.parent)
        scores = self._scored(decoded, query)
        if decoded.set_name == query.set:
            return scores
        langs = self.sets[query.set].langs  # a part, read off what the whole set has
        by_id = zip(scores.utt_ids, scores.langs or (), strict=True)
        part = scores.only({utt_id for utt_id, lang in by_id if lang in langs})
        return part if len(part) else f"{query.set} has no utterance of its languages"

    def _scored(self, decoded: DecodedSet, query: Query) -> Scores:
        if self.is_baseline:
            return score_as_owsm(decoded, self.dump)
        scores = decoded.score(
            self.dump, query.cleaning, raw_references=query.references == "raw"
        )
        if query.task != "lid":
            return scores
        heard = {r["utt_id"]: r["text"] for r in decoded.records()}
        return with_taken_for(scores, heard)

    def _why_not(self, query: Query) -> str:
        key = (query.profile, query.set, query.task)
        for item in self.planned:
            if (item.query.profile, item.query.set, item.query.task) == key:
                if item.why_not:
                    return item.why_not
                return (
                    f"{query.set} is not decoded by {query.profile}, or has no example "
                    f"for {query.task}"
                )
        return f"{self.exp}: {query.set} is not decoded with {query.profile}"


def score_as_owsm(decoded: DecodedSet, dump: Path) -> Scores:
    """Words of a model of others, both sides by Whisper's basic normaliser.

    The references went through the set's text policy first, which makes `dont` of
    don't; so do the outputs. Utterances without orthography are left out, as of ours.
    """
    truth = DumpSet(dump / decoded.set_name)
    policy, langs = truth.text_policy, truth.langs
    ref = truth.with_text(truth.references(TEXT))
    hyp = {
        r["utt_id"]: normalise_text(r["text"], langs.get(r["utt_id"]), policy)
        for r in decoded.records()
        if r["utt_id"] in ref or r["utt_id"] not in langs
    }
    return score_text(
        hyp={utt_id: whisper_basic(text) for utt_id, text in hyp.items()},
        ref={utt_id: whisper_basic(text) for utt_id, text in ref.items()},
        langs=langs,
        speakers=truth.speakers,
        text_policy=policy,
    )


def system_of(
    exp: Path, scores: ExperimentScores, model: str | None, *, any_training: bool
) -> System:
    """An experiment as a table sees it."""
    name = exp.resolve().name
    incomplete = {path.name for path in scores.dump.glob("*") if DumpSet(path).missing}
    trained = None if scores.is_baseline else trained_of(exp, model)
    baseline = str(model) if scores.is_baseline else ""
    return System(name, scores, trained, any_training, frozenset(incomplete), baseline)


def dump_system(dump: Path) -> System:
    """The sets of a dump folder, for tables of hours."""

    def hours(query: Query) -> Score | str:
        by_lang = hours_by_lang(dump / query.set)
        if by_lang is None:
            return f"set not found: {dump / query.set}"
        if query.lang == "all":
            return Score(sum(by_lang.values()), math.nan, math.nan)
        if query.lang not in by_lang:
            return f"{query.set} has no utterance in {query.lang}"
        return Score(by_lang[query.lang], math.nan, math.nan)

    return System(str(dump), hours)


def is_of_hours(table: Table) -> bool:
    """Whether a table shows sizes of sets, and no scores."""
    return all(query.metric == HOURS for query in table.queries())


def is_decoded(table: Table) -> bool:
    """Whether a table shows scores of what was decoded."""
    return not all(is_measured_otherwise(query.metric) for query in table.queries())


def last_of_history(exp: Path, name: str) -> Score | str:
    """A figure of validation at the last epoch of a training; it has no interval.

    A training that has not ended says nothing: others are at another epoch.
    """
    history = read_history(exp)
    if not history:
        return f"{exp}: no {HISTORY_FILE}; ESPnet's loop writes none"
    last = history[-1]
    config = exp / "config.yaml"
    n_epochs = load_yaml(config).get("max_epoch") if config.exists() else None
    if is_number(n_epochs) and last["epoch"] < n_epochs:
        return (
            f"{exp}: trained for {last['epoch']} of {n_epochs} epochs; go on with "
            "stage 11"
        )
    if name not in last:
        return f"{exp}: validation has no {name}; was there a CTC head?"
    return Score(last[name], math.nan, math.nan)


def with_taken_for(scores: Scores, heard: Mapping[str, str]) -> Scores:
    """Add a column for each detected language: which utterances were taken for it."""
    codes = [lang_code(heard[utt_id].strip("<>")) for utt_id in scores.utt_ids]
    columns = {
        f"{TAKEN_FOR}{code}": np.array([c == code for c in codes], np.int64)
        for code in sorted(set(filter(None, codes)))
    }
    return replace(scores, columns={**scores.columns, **columns})


def confusion(heard: Mapping[str, str], langs: Mapping[str, str]) -> list[list[str]]:
    """Figure 3: share of each language's utterances (rows) by the language heard.

    Returns:
        Rows of text, the header first: language, utterances, then each language heard,
        the most frequent first; percent, empty for none.

    >>> confusion({"a": "<eng>", "b": "<spa>"}, {"a": "eng", "b": "eng"})
    [['language', 'n', 'eng', 'spa'], ['eng', '2', '50', '50']]
    """
    counts = lid_confusion(hyp=heard, ref=langs)
    as_which: Counter[str] = Counter()
    of_which: Counter[str] = Counter()
    for (true, said), n in counts.items():
        as_which[said] += n
        of_which[true] += n
    columns = sorted(as_which, key=lambda lang: (-as_which[lang], lang))
    rows = [["language", "n", *columns]]
    for lang in sorted(of_which):
        shares = [100 * counts[lang, said] / of_which[lang] for said in columns]
        cells = (f"{share:.0f}" if share else "" for share in shares)
        rows.append([lang, str(of_which[lang]), *cells])
    return rows


def confusion_tables(exps: Iterable[Path], dump: Path) -> str:
    """The matrix of figure 3 for each experiment that decoded its set, as Markdown."""
    text = ""
    for exp in exps:
        for decoded in decoded_sets(exp / "decode_lid_paper", ["test_fleurs"]):
            heard = {record["utt_id"]: record["text"] for record in decoded.records()}
            langs = DumpSet(dump / "test_fleurs").langs
            header, *rows = confusion(heard, langs)
            text += f"\n## Language heard, percent: {exp.resolve().name}\n\n"
            text += markdown_table(header, rows) + "\n"
    return text
