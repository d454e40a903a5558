#!/usr/bin/env python3
"""Make a test set of human phone transcripts ready for decoding and scoring.

Reads a folder as PRiSM publishes them (wav.scp, text.good, text.lang) or any like it
(wav.scp, text, utt2lang) and writes <dump>/<set>.
"""

import argparse
import logging
from pathlib import Path

from powsm.tables.phone_set import write_phone_set


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="with wav.scp and text.good or text")
    add(
        "--set", required=True, help="name, as test_voxangeles in conf/tables/sets.yaml"
    )
    add("--dump", type=Path, default=Path("dump/raw"), help="where sets are")
    add("--lang", help="language of all utterances, when no file says it")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        made = write_phone_set(
            options.folder, options.dump / options.set, lang=options.lang
        )
    except (ValueError, OSError) as err:
        raise SystemExit(f"prepare_phone_set.py: error: {err}") from err
    n_dropped = len(made.dropped)
    logging.info(
        "%s: kept %d of %d utterances (no_phone=%d), %.2f h",
        options.set,
        made.n_utts,
        made.n_utts + n_dropped,
        n_dropped,
        made.hours,
    )
    if made.dropped:
        logging.info("without a phone: %s", " ".join(made.dropped[:10]))


if __name__ == "__main__":
    main()
