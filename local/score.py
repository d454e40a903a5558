#!/usr/bin/env python3
"""Score anyone's hypotheses: phones, words, characters or languages.

Files are Kaldi text, JSONL or CSV/TSV with a header. Rates are pooled over all
utterances and, with --langs, also of each language, with 95 % intervals. What each rate
means is in powsm/score.py.
"""

import argparse
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from powsm.alphabets import phone_maps
from powsm.rates import LID_RATES, PHONE_RATES, RATES, TEXT_RATES, Scores
from powsm.score import score_lid, score_phones, score_text
from powsm.transcripts import CLEANINGS, read_transcripts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--hyp", type=Path, required=True, help="hypotheses")
    add("--ref", type=Path, required=True, help="references")
    add("--langs", type=Path, help="language of each utterance")
    add("--utt2spk", type=Path, help="speakers: intervals over them, not utterances")
    metrics = f"some of {' '.join(RATES)}; default: {' '.join(PHONE_RATES)}"
    add(
        "--metric",
        nargs="+",
        choices=RATES,
        default=PHONE_RATES,
        metavar="METRIC",
        help=metrics,
    )
    cleaning = "how text becomes phones; prism compares with published tables"
    add("--cleaning", choices=CLEANINGS, default="strict", help=cleaning)
    add("--phone_map", choices=phone_maps(), help="alphabet of --ref, if not IPA")
    add("--hyp_phone_map", choices=phone_maps(), help="the same for --hyp")
    add("--hyp_field", help="field of JSONL or CSV to score; default text, hyp, ...")
    add("--format", choices=("table", "json"), default="table")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    unit = "speaker" if options.utt2spk else "utterance"
    try:
        scored = dict(score(options))
        records = [
            record
            for task, scores in scored.items()
            for record in scores.records(
                set_name=options.ref.stem, task=task, decode="", unit=unit
            )
        ]
    except (ValueError, OSError) as err:
        raise SystemExit(f"score.py: error: {err}") from err
    if options.format == "json":
        counts = {task: scores.counts for task, scores in scored.items()}
        unknown = {
            task: {"hyp": scores.unknown_hyp, "ref": scores.unknown_ref}
            for task, scores in scored.items()
        }
        result = {"records": records, "counts": counts, "unknown": unknown}
        print(json.dumps(result, ensure_ascii=False, indent=1))
        return
    print_table(records)
    for scores in scored.values():
        print(" ".join(f"{name}={n:,}" for name, n in scores.counts.items()))


def score(options: argparse.Namespace) -> Iterator[tuple[str, Scores]]:
    """Yield (task, scores) for each kind of metric that is asked for."""
    hyp = read_transcripts(options.hyp, options.hyp_field)
    ref = read_transcripts(options.ref)
    langs = read_transcripts(options.langs) if options.langs else None
    speakers = read_transcripts(options.utt2spk) if options.utt2spk else None
    phone_options = {
        "cleaning": options.cleaning,
        "phone_map": options.phone_map,
        "hyp_phone_map": options.hyp_phone_map,
    }
    for task, rates, scorer, more in (
        ("pr", (*PHONE_RATES, "FER"), score_phones, {"langs": langs, **phone_options}),
        ("asr", TEXT_RATES, score_text, {"langs": langs}),
        ("lid", LID_RATES, score_lid, {}),
    ):
        asked = tuple(rate for rate in options.metric if rate in rates)
        if asked:
            scores = scorer(hyp=hyp, ref=ref, speakers=speakers, **more)
            yield task, replace(scores, rates=asked)


def print_table(records: list[dict]) -> None:
    print(f"{'lang':<6}{'metric':<14}{'value':>9}  {'95 % interval':<20}utts  units")
    for row in records:
        low, high = (
            "?" if bound is None else f"{bound:.2f}"
            for bound in (row["low"], row["high"])
        )
        print(
            f"{row['lang']:<6}{row['metric']:<14}{row['value']:>9.2f}  "
            f"{f'[{low}, {high}]':<20}{row['n_utts']}  {row['n_units']}"
        )


if __name__ == "__main__":
    main()
