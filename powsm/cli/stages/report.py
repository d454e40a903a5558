#!/usr/bin/env python3
"""Stage 13: write the reports of a scored experiment.

Makes <exp>/RESULTS.md, <exp>/images/*.png and the page <exp>/report/index.html from
results.json, history.jsonl and the decoded sets.
"""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from powsm.report import experiment, page, plots
from powsm.report import results_md as markdown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--exp", type=Path, required=True, help="experiment folder")
    parser.add_argument("--dump", type=Path, required=True, help="dump/raw")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    try:
        found = experiment.read_experiment(options.exp)
        pictures = plots.write_plots(found.history, options.exp / "images")
        command = shlex.join(["python", *sys.argv])
        text = markdown.write(found, options.dump, command)
        html = page.write(found, options.dump, command)
    except (ValueError, OSError) as err:
        raise SystemExit(f"report.py: error: {err}") from err
    size_mb = html.stat().st_size / 1e6
    logging.info("wrote %s, %d pictures, %s", text, len(pictures), html)
    logging.info("the page has %.1f MB and needs no network", size_mb)


if __name__ == "__main__":
    main()
