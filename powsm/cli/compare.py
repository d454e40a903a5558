"""Two experiments, or two profiles of one, on the utterances that both decoded.

Of one set, different profiles and tasks make pairs as well: speech recognition and P2G.
Prints Markdown: the rates of both, the difference with a paired interval and its p, the
settings that differ, and what only one of them decoded.
"""

import argparse
import logging
from pathlib import Path

from powsm.cli.options import add_shared
from powsm.errors import PowsmError
from powsm.files.whole import write_whole

log = logging.getLogger(__name__)

NOT_COMPARED = ("token_list", "output_dir")  # long, or different by nature


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    sides = "experiment folder, or one of a profile or of a decoded set in it"
    add("first", type=Path, help=sides)
    add("second", type=Path, help="the same")
    add_shared(parser, "--dump", required=False, default=Path("dump/raw"), help=None)
    add("--by_lang", action="store_true", help="each language as well")
    add("--out", type=Path, help="write the text to this file, too")


def run(options: argparse.Namespace) -> None:
    text = compare(options)
    print(text)
    if options.out:
        write_whole(options.out, text)


def compare(options: argparse.Namespace) -> str:
    """The comparison as Markdown."""
    from powsm.report.compare import (
        compare_scores,
        config_differences,
        pair_decoded,
        render,
    )

    exps = (options.first, options.second)
    for exp in exps:
        if not exp.is_dir():
            raise PowsmError(f"{exp}: no such folder, expected an experiment")
    pairs, unpaired = pair_decoded(*exps)
    if not pairs:
        raise PowsmError(
            f"{exps[0]} and {exps[1]} have no decoded set in common; run stage 12 with "
            "the same test sets"
        )
    compared = []
    for pair in pairs:
        scores = [side.score(options.dump) for side in (pair.first, pair.second)]
        if pair.of_other_utterances:
            both = set(scores[0].utt_ids) & set(scores[1].utt_ids)
            log.info("%s: on the %d utterances with orthography", pair.what, len(both))
            scores = [side.only(both) for side in scores]
        compared += compare_scores(pair, *scores, by_lang=options.by_lang)
    settings = [read_config(exp) for exp in exps]
    names = tuple(exp.resolve().name for exp in exps)
    if names[0] == names[1]:
        names = tuple(map(str, exps))
    return render(names, compared, config_differences(*settings), unpaired)


def read_config(folder: Path) -> dict:
    """Settings of the experiment that a folder is or lies in; none without them."""
    from powsm.settings import load_yaml

    folder = folder.resolve()
    # <exp>/<profile>/<set>/<task>
    paths = [place / "config.yaml" for place in (folder, *folder.parents[:3])]
    config = next((load_yaml(path) for path in paths if path.is_file()), {})
    return {key: value for key, value in config.items() if key not in NOT_COMPARED}
