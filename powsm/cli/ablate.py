"""An ablation from one YAML file: train, decode and score its variants, one table.

    powsm ablate --plan conf/ablation_mini.yaml --dump dump/raw \\
        --token_dir data/token_list/bpe_unigram300 \\
        --stats exp/s2t_stats_raw --out exp/ablation

Writes <out>/ablation.md and <out>/ablation.csv. A variant that is trained and decoded
is not done again; one that was broken off goes on. Variants of another part of the data
than --dump is are not trained; called with each dump folder in turn and the same --out,
the last call has them all in its tables.
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from powsm.cli.options import add_shared
from powsm.cli.run import run_verb
from powsm.errors import PowsmError
from powsm.files.whole import atomic_write, write_whole
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
    left_out = of_other_data(plan, options)
    find_teachers(plan, options.out)
    check_batches(plan, options, left_out)
    scores: dict[str, dict[Path, Scores]] = {}
    costs: dict[str, Cost] = {}
    for number, variant in enumerate(plan.variants, 1):
        exp = options.out / variant.folder
        log.info("variant %d of %d: %s", number, len(plan.variants), variant.name)
        if variant.name in left_out:
            log.warning("%s", left_out[variant.name])
            continue
        costs[variant.name] = train(options, plan, variant, exp)
        scores[variant.name] = decode(options, plan, variant, exp)
    rows = ablation.measure(scores, plan.reference)
    title = f"# Ablation {options.plan.stem}\n\n"
    write_whole(
        options.out / "ablation.md",
        title + ablation.markdown(rows, costs, plan.reference, [*left_out.values()]),
    )
    write_whole(options.out / "ablation.csv", ablation.to_csv(rows, costs))
    log.info("%d rates in %s and .csv", len(rows), options.out / "ablation.md")


def of_other_data(plan: "Plan", options: argparse.Namespace) -> dict[str, str]:
    """Variants that cannot be trained on this dump folder and are not trained yet.

    Returns:
        Name -> why it is left out.

    Raises:
        PowsmError: the reference is one of them, so that nothing can be compared.
    """
    from powsm.report import ablation

    subset = ablation.subset_of(options.dump / "train")
    left_out = {
        variant.name: f"{variant.name}: of {variant.subset} data, and "
        f"{options.dump}/train is {subset}"
        for variant in plan.variants
        if not variant.is_of(subset)
        and not is_trained(variant, options.out / variant.folder)
    }
    if plan.reference in left_out:
        reason = left_out[plan.reference]
        raise PowsmError(
            f"{options.plan}: the reference is not trained, {reason}; "
            "begin with its dump folder, which stage 4 makes by --subset"
        )
    return left_out


def find_teachers(plan: "Plan", out: Path) -> None:
    """Look for the models that variants are to learn from, before any is trained.

    Raises:
        CheckpointError: one is not there.
    """
    from powsm.model.find import find_model

    for variant in plan.variants:
        teacher = dict(variant.settings.get("model_conf") or {}).get("teacher")
        if teacher and not is_trained(variant, out / variant.folder):
            find_model(teacher)


def check_batches(
    plan: "Plan", options: argparse.Namespace, left_out: Mapping[str, str]
) -> None:
    """Hold the batches of all variants against the data, before any is trained.

    Raises:
        PowsmError: an utterance is longer than a batch of a variant; names the variant.
    """
    from powsm.prepare.index import ExampleIndex, build_index
    from powsm.train.batches.plan import check_longest

    train = options.dump / "train"
    build_index(train)
    index = ExampleIndex(train)
    for variant in plan.variants:
        seconds = dict(variant.settings.get("batch_conf") or {}).get("batch_seconds")
        if not isinstance(seconds, int | float) or variant.name in left_out:
            continue
        speeds = dict(variant.settings.get("augment") or {}).get("speed") or ()
        try:
            asked = index.has_task(variant.tasks())
            check_longest(index.n_samples[asked], speeds, seconds)
        except PowsmError as exc:
            raise PowsmError(f"{options.plan}: {variant.name}: {exc}") from exc


def is_trained(variant: "Variant", exp: Path) -> bool:
    """Whether a variant is at its last epoch, and averaged."""
    from powsm.score.results import read_history

    history = read_history(exp)
    is_at_end = history and history[-1]["epoch"] == variant.settings["max_epoch"]
    return bool(is_at_end and list(exp.glob("valid.*.ave.pth")))


def train(
    options: argparse.Namespace, plan: "Plan", variant: "Variant", exp: Path
) -> "Cost":
    """Train a variant, or go on with it, unless it is at its last epoch."""
    from powsm.report import ablation
    from powsm.score.results import read_history
    from powsm.train.experiment.record import has_weights

    record = exp / "variant.yaml"
    if record.exists() and has_weights(exp):
        check_trained(variant, exp, load_yaml(record))
    if not is_trained(variant, exp):
        with atomic_write(record) as file:
            yaml.safe_dump(dict(variant.settings), file, allow_unicode=True)
        command = ["train", "--config", plan.config, "--dump", options.dump]
        command += ["--token_dir", options.token_dir, "--exp", exp]
        command += ["--stats", options.stats] if options.stats else []
        if variant.goes_on_from:
            before = options.out / ablation.folder_of(variant.goes_on_from)
            command += ["--goes_on_from", before]
        run_verb(*command, "--set", *variant.overrides)
    last = read_history(exp)[-1]
    return ablation.Cost(last["updates"], last["seconds"])


def check_trained(variant: "Variant", exp: Path, before: dict) -> None:
    """Refuse a folder in which something else was trained.

    Raises:
        PowsmError: settings, data or the training before differ.
    """
    from powsm.report import ablation
    from powsm.train.experiment.go_on import origin

    changed = ablation.changed_settings(before, variant.settings)
    faults = [f"was trained with other {' '.join(changed)}"] if changed else []
    came_from = (origin(exp) or {}).get("exp", "")
    if came_from != ablation.folder_of(variant.goes_on_from):
        faults.append(f"went on from {came_from}" if came_from else "began anew")
    if not variant.is_of(subset := ablation.subset_of(exp)):
        faults.append(f"was trained on {subset} data, not {variant.subset}")
    if faults:
        raise PowsmError(
            f"{exp} {' and '.join(faults)}; remove the folder, or give the variant "
            "another name"
        )


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
