"""Stage 13: write the reports of a scored experiment.

Makes <exp>/RESULTS.md, <exp>/images/*.png and the page <exp>/report/index.html from
results.json, history.jsonl and the decoded sets.
"""

import argparse
import logging

from powsm.cli.options import add_shared

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "--exp", "--dump")


def run(options: argparse.Namespace) -> None:
    from powsm.files.lock import owned
    from powsm.files.whole import sweep_files
    from powsm.report import experiment, page, plots, results_md

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    scored = experiment.read_experiment(options.exp)
    with owned(options.exp / "report"):
        for folder in ("report", "images"):
            sweep_files(options.exp / folder)
        sweep_files(options.exp, below=False, of=["RESULTS.md"])
        pictures = plots.write_plots(scored.history, options.exp / "images")
        text = results_md.write(scored, options.dump, options.command)
        html = page.write(scored, options.dump, options.command)
    size_mb = html.stat().st_size / 1e6
    log.info("wrote %s, %d pictures, %s", text, len(pictures), html)
    log.info("the page has %.1f MB and needs no network", size_mb)
