#!/usr/bin/env python3
"""Two experiments, or two profiles of one, on the utterances that both decoded.

Prints Markdown: the rates of both, the difference with a paired interval and its p, the
settings that differ, and what only one of them decoded.
"""

import argparse
import logging
from pathlib import Path

import yaml

from powsm.report.compare import (
    common_hyps,
    compare_scores,
    config_differences,
    render,
)
from powsm.score.decoded import DecodedSet

NOT_COMPARED = ("token_list", "output_dir")  # long, or different by nature


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("first", type=Path, help="experiment folder, or one of a profile in it")
    add("second", type=Path, help="the same")
    add("--dump", type=Path, default=Path("dump/raw"), help="default: dump/raw")
    add("--by_lang", action="store_true", help="each language as well")
    add("--out", type=Path, help="write the text to this file, too")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        text = run(options)
        print(text)
        if options.out:
            options.out.write_text(text, encoding="utf-8")
    except (ValueError, OSError) as err:
        raise SystemExit(f"compare.py: error: {err}") from err


def run(options: argparse.Namespace) -> str:
    exps = (options.first, options.second)
    common, unpaired = common_hyps(*exps)
    if not common:
        raise ValueError(
            f"{exps[0]} and {exps[1]} have no decoded set in common; run stage 12 with "
            "the same profiles and test sets"
        )
    compared = []
    for what in common:
        scores = [DecodedSet(exp / what).score(options.dump) for exp in exps]
        compared += compare_scores(what, *scores, by_lang=options.by_lang)
    settings = [read_config(exp / "config.yaml") for exp in exps]
    names = tuple(exp.resolve().name for exp in exps)
    return render(names, compared, config_differences(*settings), unpaired)


def read_config(path: Path) -> dict:
    """Settings of an experiment; none where it has no config.yaml."""
    if not path.exists():
        return {}
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key: value for key, value in config.items() if key not in NOT_COMPARED}


if __name__ == "__main__":
    main()
