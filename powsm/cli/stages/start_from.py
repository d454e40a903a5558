"""Stage 5 with --init_from: vocabulary, weights and statistics of another model."""

import argparse
import logging
from pathlib import Path

from powsm.cli.options import MODEL

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--init_from", required=True, help=MODEL)
    add("--dump_set", type=Path, required=True, help="dump/raw/train")
    add("--out", type=Path, required=True, help="folder to write in")
    extend = "add languages, phones and letters that its tokens lack"
    add("--extend_vocab", action="store_true", help=extend)


def run(options: argparse.Namespace) -> None:
    from powsm.files.whole import naming
    from powsm.model.light import import_espnet

    import_espnet()
    from powsm.model.start_from import start_from

    with naming(options.out):
        summary = start_from(
            options.init_from,
            options.dump_set,
            options.out,
            extend_vocab=options.extend_vocab,
        )
    log.info("%s: %s", options.out, summary)
