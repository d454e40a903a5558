"""Stage 5: dump/raw/train -> data/token_list: symbols and SentencePiece unigram."""

import argparse
import logging
from pathlib import Path

from powsm.cli.options import number, whole

log = logging.getLogger(__name__)

TIME_STEP_S = "0.02"  # of the published vocabulary


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dump_set", type=Path, default=Path("dump/raw/train"), help="made by stage 4")
    folder = Path("data/token_list")
    add("--out", type=Path, default=folder, help="gets bpe_unigram<N>/")
    add("--nbpe", type=whole(1), default=40000, help="pieces in all, symbols included")
    add("--phones", choices=["all", "observed"], default="all", help="phone symbols")
    add("--languages", choices=["all", "observed"], default="all", help="their symbols")
    step = "seconds, or none: the two ends only"
    add("--time_step_s", type=time_step, default=TIME_STEP_S, help=step)
    most = "sampled if more"
    add("--bpe_input_sentences", type=whole(1), default=35_000_000, help=most)
    add("--seed", type=whole(), default=42, help="of sampling and training")


def time_step(text: str) -> float | None:
    return None if text == "none" else number(above=True)(text)


def run(options: argparse.Namespace) -> None:
    from powsm.vocabulary.train import TokenizerSettings, train_tokenizer

    settings = TokenizerSettings(
        n_pieces=options.nbpe,
        only_observed_phones=options.phones == "observed",
        only_observed_languages=options.languages == "observed",
        time_step_s=options.time_step_s,
        max_sentences=options.bpe_input_sentences,
        seed=options.seed,
    )
    folder = options.out / f"bpe_unigram{options.nbpe}"
    counts = train_tokenizer(options.dump_set, folder, settings)
    if counts is None:
        log.info("%s: current, nothing to do", folder)
    else:
        log.info("%s: %s", folder, counts)
