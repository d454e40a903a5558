#!/usr/bin/env python3
"""Stage 5: dump/raw/train -> data/token_list: symbols and SentencePiece unigram."""

import argparse
import logging
import sys
from pathlib import Path

from powsm.vocabulary.tokenizer import (
    TIME_STEP_S,
    TokenizerSettings,
    train_tokenizer,
)

log = logging.getLogger("train_tokenizer")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--dump_set", type=Path, default=Path("dump/raw/train"), help="made by stage 4")
    add(
        "--out", type=Path, default=Path("data/token_list"), help="gets bpe_unigram<N>/"
    )
    add("--nbpe", type=int, default=40000, help="pieces in all, symbols included")
    add("--phones", choices=["all", "observed"], default="all", help="phone symbols")
    add("--languages", choices=["all", "observed"], default="all", help="their symbols")
    add("--time_step_s", default=str(TIME_STEP_S), help="or none: the two ends only")
    add("--bpe_input_sentences", type=int, default=35_000_000, help="sampled if more")
    add("--seed", type=int, default=42, help="of sampling and training")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = TokenizerSettings(
        n_pieces=args.nbpe,
        only_observed_phones=args.phones == "observed",
        only_observed_languages=args.languages == "observed",
        time_step_s=None if args.time_step_s == "none" else float(args.time_step_s),
        max_sentences=args.bpe_input_sentences,
        seed=args.seed,
    )
    folder = args.out / f"bpe_unigram{args.nbpe}"
    made = train_tokenizer(args.dump_set, folder, settings)
    if made is None:
        log.info("%s: current, nothing to do", folder)
    else:
        log.info("%s: %s", folder, made)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as err:
        sys.exit(f"train_tokenizer.py: error: {err}")
