#!/usr/bin/env python3
"""Stage 3 with --audio_format: copy the audio of data/ for stock ESPnet alone."""

import argparse
import logging
from pathlib import Path

from powsm.cli.options import sets_of, whole
from powsm.cli.run import run_command
from powsm.prepare.copy_audio import FORMATS, copy_set

log = logging.getLogger("powsm")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the sets")
    add("--sets", nargs="+", help="train dev test_x ...; all with a wav.scp if unset")
    add("--format", choices=FORMATS, default="flac.ark", help="of the copies")
    add("--nj", type=whole(1), default=1, help="processes")


def run(args: argparse.Namespace) -> None:
    for dset in sets_of(args, "wav.scp"):
        n_utts = copy_set(args.data / dset, args.format, args.nj)
        if n_utts is None:
            log.info("%s: current, nothing to do", dset)
        else:
            log.info("%s: copied %s utterances as %s", dset, f"{n_utts:,}", args.format)


if __name__ == "__main__":
    run_command(Path(__file__).name, __doc__, add_options, run)
