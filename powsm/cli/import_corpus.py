"""Import speech of your own as a corpus that the stages read.

    powsm import my_folder mine --lang ita --g2p espeak    # recordings with NAME.txt
    powsm import my.csv mine --lang ita    # path,text[,ipa,lang,speaker]
    powsm import my_folder mine --tier words --ipa_tier ipa --lang ita

SOURCE is a folder of recordings with NAME.txt, NAME.lab or NAME.ipa beside each, or
with NAME.TextGrid or NAME.eaf (--tier); a .csv or .tsv; a language's folder of Common
Voice; a Kaldi folder; a folder of lhotse manifests; or a Hugging Face dataset as
save_to_disk writes it. What is wrong with it is listed at once, and nothing is written
then. Else DOWNLOADS/NAME_shar holds train, dev and test, as the source says them or by
texts, and corpus.yaml.
"""

import argparse
import logging
from pathlib import Path

from powsm.cli.options import add_shared, refuse_unused, whole

log = logging.getLogger(__name__)

_FEW_HOURS = 10.0  # with less it is better to go on from a trained model


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="folder, .csv or .tsv")
    add("name", help="of the corpus: letters, digits and -")
    add_shared(parser, "--downloads")
    add("--lang", help="code or name, of utterances that do not say theirs")
    g2p = "where IPA comes from: the source (given), espeak where the source has none, "
    add(
        "--g2p",
        choices=("given", "espeak", "none"),
        default="given",
        help=f"{g2p}or the texts are IPA (none)",
    )
    add("--human", action="store_true", help="people heard it and wrote the IPA")
    add("--tier", help="of TextGrids and EAFs, with the words")
    add("--ipa_tier", help="and with their IPA")
    add("--split", choices=("train", "dev", "test"), help="put all into this one")
    add("--seed", type=whole(), default=0, help="of the split by texts")


def run(options: argparse.Namespace) -> None:
    from powsm.corpora.sources.bring import as_asked, bring

    has_tier = options.tier is not None
    refuse_unused(options, "ipa_tier", why="there is no --tier", unless=has_tier)
    why = f"all go to {options.split}"
    refuse_unused(options, "seed", why=why, unless=options.split is None)
    asked = as_asked(
        options.lang,
        g2p=options.g2p,
        tier=options.tier,
        ipa_tier=options.ipa_tier,
        split=options.split,
        seed=options.seed,
        human=options.human,
    )
    corpus = bring(options.source, options.name, options.downloads, asked)
    parts = ", ".join(
        f"{split} {n:,} ({60 * corpus.hours[split]:.1f} min)"
        for split, n in corpus.n_utts.items()
    )
    log.info(
        "%s: %s of %s: %s",
        corpus.folder,
        corpus.kind,
        " ".join(corpus.languages),
        parts,
    )
    if not options.human and options.g2p != "espeak":
        log.info(
            "its IPA is taken for a program's, which gets the paper's allophones in "
            "English; --human says that people heard and wrote it"
        )
    for step in next_steps(options.name, corpus.hours, corpus.languages):
        log.info("next: %s", step)


def next_steps(
    name: str, hours: dict[str, float], languages: tuple[str, ...]
) -> list[str]:
    """What can be done with a corpus that was imported, in the folder of a recipe."""
    steps = ["./run.sh --stage 1 --stop_stage 4    (then read data/report)"]
    if hours.get("train", 0) >= _FEW_HOURS:
        steps.append("./run.sh --stage 5    trains a model on it")
    elif "train" in hours:
        steps.append(
            f'./run.sh --stage 4 --langs "{" ".join(languages)}" --init_from '
            "espnet/powsm --extend_vocab ...    goes on from a trained model, see "
            "docs/finetune.md"
        )
    if "test" in hours:
        steps.append(
            f"./run.sh --stage 12 --test_sets test_{name} --download_model espnet/powsm"
            "    scores a model on it"
        )
    return steps
