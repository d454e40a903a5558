"""Score anyone's hypotheses: phones, words, characters or languages.

Files are Kaldi text, JSONL, or CSV/TSV with a header (known by the extension). Rates
are pooled over all utterances and, with --langs or --by, also of each language or
other label, with 95 % intervals. What each rate means is in powsm/score/metrics.py.
"""

import argparse
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from powsm.cli.options import number, refuse_unused
from powsm.files.transcripts import (
    HYP_FIELDS,
    REF_FIELDS,
    TEXT_FIELDS,
    read_transcripts,
)
from powsm.phones.alphabets import phone_maps
from powsm.phones.orthography import DEFAULT_POLICY, POLICIES
from powsm.phones.unknown import MAX_UNKNOWN_RATE
from powsm.score.phone_reader import CLEANINGS
from powsm.score.rates import LID_RATES, PHONE_RATES, TEXT_RATES, Scores, rate_notes
from powsm.tasks import LANGUAGE, PHONES, TEXT, plain_task

log = logging.getLogger(__name__)

_OF_PHONES = ("cleaning", "phone_map", "hyp_phone_map", "max_unknown_rate")  # options


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--hyp", type=Path, required=True, help="hypotheses")
    add("--ref", type=Path, required=True, help="references")
    add("--langs", type=Path, help="language of each utterance")
    add("--by", type=Path, help="another label of each utterance, such as a speaker")
    add("--utt2spk", type=Path, help="speakers: intervals over them, not utterances")
    rates = (*PHONE_RATES, "FER", *TEXT_RATES, *LID_RATES)
    metrics = f"some of {' '.join(rates)}; default: {' '.join(PHONE_RATES)}"
    add(
        "--metric",
        nargs="+",
        choices=rates,
        default=PHONE_RATES,
        metavar="METRIC",
        help=metrics,
    )
    cleaning = (
        "how text becomes phones; strict leaves out stress and tones; prism, which "
        "compares with published tables, leaves out what PanPhon does not know"
    )
    add("--cleaning", choices=CLEANINGS, default="strict", help=cleaning)
    policy = "how words were written, which says what languages have no spaces"
    add("--text_policy", choices=POLICIES, default=DEFAULT_POLICY, help=policy)
    add("--phone_map", choices=phone_maps(), help="alphabet of --ref, if not IPA")
    add("--hyp_phone_map", choices=phone_maps(), help="the same for --hyp")
    unknown = (
        "largest share of the characters of either side that may be in no phone; "
        "not asked by prism"
    )
    add("--max_unknown_rate", type=number(0, 1), default=MAX_UNKNOWN_RATE, help=unknown)
    add("--hyp_field", help="field of JSONL or CSV; default: hyp, pred, text, ...")
    add("--ref_field", help="the same of --ref; default: ref, text, ...")
    add("--format", choices=("table", "json"), default="table")


def run(options: argparse.Namespace) -> None:
    refuse_useless(options)
    unit = "speaker" if options.utt2spk else "utterance"
    scored = dict(score(options))
    labels = read_transcripts(options.by) if options.by else None
    records = []
    for task, scores in scored.items():
        name = options.ref.stem
        rows = scores.records(set_name=name, task=task, decode="", unit=unit)
        for rate in scores.rates:
            if not any(row["metric"] == rate for row in rows):
                log.warning("%s has no value: nothing to divide by", rate)
        records += rows
        for label, part in scores.by(labels).items() if labels else ():
            place = {"set": name, "by": label, "task": task, "decode": ""}
            records += [{**place, **row} for row in part.rate_rows(unit)]
    if options.format == "json":
        print_json(records, scored)
        return
    print_table(records)
    print(rate_notes(dict.fromkeys(row["metric"] for row in records)))
    for scores in scored.values():
        print(" ".join(f"{name}={n:,}" for name, n in scores.counts.items()))
        for side, lost in (("hyp", scores.unknown_hyp), ("ref", scores.unknown_ref)):
            if kinds := lost.by_kind():
                print(f"{side}: {lost.n_characters:,} characters, in no phone: {kinds}")


def refuse_useless(options: argparse.Namespace) -> None:
    """Refuse what none of the metrics that are asked for would read."""
    asked = set(options.metric)
    reads_phones = bool(asked & {*PHONE_RATES, "FER"})
    why = f"{' '.join(options.metric)} reads no phones"
    refuse_unused(options, *_OF_PHONES, why=why, unless=reads_phones)
    why = f"{' '.join(options.metric)} reads no words"
    refuse_unused(options, "text_policy", why=why, unless=bool(asked & {*TEXT_RATES}))
    why = "languages are scored by those of --ref"
    refuse_unused(options, "langs", why=why, unless=not asked <= {*LID_RATES})
    why = "--cleaning prism asks for no rate"
    is_strict = options.cleaning != "prism"
    refuse_unused(options, "max_unknown_rate", why=why, unless=is_strict)


def print_json(records: list[dict], scored: Mapping[str, Scores]) -> None:
    losses = {
        task: {"hyp": scores.unknown_hyp, "ref": scores.unknown_ref}
        for task, scores in scored.items()
    }

    def of_sides(name: str) -> dict[str, dict]:
        return {
            task: {side: getattr(lost, name) for side, lost in sides.items()}
            for task, sides in losses.items()
        }

    result = {
        "records": records,
        "counts": {task: scores.counts for task, scores in scored.items()},
        "unknown": of_sides("symbols"),
        "left_out": of_sides("kinds"),
    }
    print(json.dumps(result, ensure_ascii=False, indent=1))


def score(options: argparse.Namespace) -> Iterator[tuple[str, Scores]]:
    """Yield (task, scores) for each kind of metric that is asked for."""
    from powsm.score.metrics import score_lid, score_phones, score_text

    hyp = _read(options.hyp, options.hyp_field, HYP_FIELDS)
    ref = _read(options.ref, options.ref_field, REF_FIELDS)
    langs = read_transcripts(options.langs) if options.langs else None
    speakers = read_transcripts(options.utt2spk) if options.utt2spk else None
    phone_options = {key: getattr(options, key) for key in _OF_PHONES}
    by_lang = {"langs": langs}
    for writes, rates, scorer, more in (
        (PHONES, (*PHONE_RATES, "FER"), score_phones, by_lang | phone_options),
        (TEXT, TEXT_RATES, score_text, by_lang | {"text_policy": options.text_policy}),
        (LANGUAGE, LID_RATES, score_lid, {}),
    ):
        asked = tuple(rate for rate in options.metric if rate in rates)
        if asked:
            scores = scorer(hyp=hyp, ref=ref, speakers=speakers, **more)
            yield plain_task(writes), replace(scores, rates=asked)


def _read(path: Path, field: str | None, usual: tuple[str, ...]) -> Mapping[str, str]:
    """The texts of a side, by the field that is asked for or the first usual one."""
    fields = (field,) if field else (*usual, *TEXT_FIELDS)
    return read_transcripts(path, fields, wants_fields=bool(field))


def print_table(records: list[dict]) -> None:
    labels = [row.get("lang") or row["by"] for row in records]
    width = max([6, *(len(label) + 2 for label in labels)])
    print(f"{'':<{width}}{'metric':<14}{'value':>9}  {'95 % interval':<20}utts  units")
    for label, row in zip(labels, records, strict=True):
        low, high = (
            "?" if bound is None else f"{bound:.2f}"
            for bound in (row["low"], row["high"])
        )
        print(
            f"{label:<{width}}{row['metric']:<14}{row['value']:>9.2f}  "
            f"{f'[{low}, {high}]':<20}{row['n_utts']}  {row['n_units']}"
        )
