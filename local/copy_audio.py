#!/usr/bin/env python3
"""Stage 3 with --audio_format: copy the audio of data/ for stock ESPnet alone."""

import argparse
import logging
import sys
from pathlib import Path

from powsm.prepare.copy_audio import FORMATS, copy_set

log = logging.getLogger("copy_audio")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder of the sets")
    add("--sets", nargs="+", help="train dev test_x ...; all with a wav.scp if unset")
    add("--format", choices=FORMATS, default="flac.ark", help="of the copies")
    add("--nj", type=int, default=1, help="processes")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sets = args.sets or sorted(p.parent.name for p in args.data.glob("*/wav.scp"))
    if not sets:
        raise ValueError(f"{args.data}: no set with a wav.scp; run stage 1 first")
    for dset in sets:
        n_utts = copy_set(args.data / dset, args.format, args.nj)
        if n_utts is None:
            log.info("%s: current, nothing to do", dset)
        else:
            log.info("%s: copied %s utterances as %s", dset, f"{n_utts:,}", args.format)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as err:
        sys.exit(f"copy_audio.py: error: {err}")
