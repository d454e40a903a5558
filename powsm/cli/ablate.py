"""An ablation from one YAML file: train, decode and score its variants, one table.

    powsm ablate --plan conf/ablation_mini.yaml --dump dump/raw \\
        --token_dir data/token_list/bpe_unigram300 \\
        --stats exp/s2t_stats_raw/train/feats_stats.npz --out exp/ablation

Writes <out>/ablation.md and <out>/ablation.csv. A variant that is trained and decoded
is not done again; one that was broken off goes on.
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from powsm.cli.options import add_shared
from powsm.cli.run import run_verb
from powsm.errors import PowsmError
from powsm.files.whole import atomic_write
from powsm.settings import load_yaml
from powsm.tasks import LID

if TYPE_CHECKING:
    from powsm.report.ablation import Cost, Plan, Variant
    from powsm.score.rates import Scores

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--plan", type=Path, required=True, help="conf/ablation_*.yaml")
    add_shared(parser, "--dump", "--token_dir", "--stats")
    add("--out", type=Path, required=True, help="folder of the experiments and tables")


def run(options: argparse.Namespace) -> None:
    from powsm.report import ablation

    plan = ablation.Plan.load(options.plan)
    scores: dict[str, dict[Path, Scores]] = {}
    costs: dict[str, Cost] = {}
    for number, variant in enumerate(plan.variants, 1):
        exp = options.out / variant.folder
        log.info("variant %d of %d: %s", number, len(plan.variants), variant.name)
        costs[variant.name] = train(options, plan, variant, exp)
        scores[variant.name] = decode(options, plan, variant, exp)
    rows = ablation.measure(scores, plan.reference)
    title = f"# Ablation {options.plan.stem}\n\n"
    with atomic_write(options.out / "ablation.md") as file:
        file.write(title + ablation.markdown(rows, costs, plan.reference))
    with atomic_write(options.out / "ablation.csv") as file:
        file.write(ablation.to_csv(rows, costs))
    log.info("%d rates in %s and .csv", len(rows), options.out / "ablation.md")


def train(
    options: argparse.Namespace, plan: "Plan", variant: "Variant", exp: Path
) -> "Cost":
    """Train a variant, or go on with it, unless it is at its last epoch."""
    from powsm.report import ablation
    from powsm.score.results import read_history

    record = exp / "variant.yaml"
    if record.exists():
        before = load_yaml(record)
        if changed := ablation.changed_settings(before, variant.settings):
            raise PowsmError(
                f"{exp} was trained with other {' '.join(changed)}; remove the folder, "
                "or give the variant another name"
            )
    with atomic_write(record) as file:
        yaml.safe_dump(dict(variant.settings), file, allow_unicode=True)
    history = read_history(exp)
    averaged = list(exp.glob("valid.*.ave.pth"))
    last = variant.settings["max_epoch"]
    if not (history and history[-1]["epoch"] == last and averaged):
        command = ["train", "--config", plan.config, "--dump", options.dump]
        command += ["--token_dir", options.token_dir, "--exp", exp]
        command += ["--stats", options.stats] if options.stats else []
        run_verb(*command, "--set", *variant.overrides)
        history = read_history(exp)
    return ablation.Cost(history[-1]["updates"], history[-1]["seconds"])


def decode(
    options: argparse.Namespace, plan: "Plan", variant: "Variant", exp: Path
) -> dict[Path, "Scores"]:
    """Decode what the variant can, and score the tasks it learned."""
    from powsm.score.decoded import decoded_sets

    profiles = variant.profiles(plan)
    command = ["decode", "--exp", exp, "--dump", options.dump, "--sets", *plan.sets]
    run_verb(*command, "--profiles", *profiles)
    return {
        decoded.place: decoded.score(options.dump)
        for profile in profiles
        for decoded in decoded_sets(exp / profile.stem, plan.sets)
        if decoded.task in (*variant.tasks(), LID)
    }
