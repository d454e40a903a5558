#!/usr/bin/env python3
"""An ablation from one YAML file: train, decode and score its variants, one table.

    python local/ablate.py --plan conf/ablation_mini.yaml --dump dump/raw \\
        --token_dir data/token_list/bpe_unigram300 \\
        --stats exp/s2t_stats_raw/train/feats_stats.npz --out exp/ablation

Writes <out>/ablation.md and <out>/ablation.csv. A variant that is trained and decoded
is not done again; one that was broken off goes on.
"""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

import yaml

from powsm.files.whole import atomic_write
from powsm.report import ablation
from powsm.report.ablation import Plan, Variant
from powsm.score.decoded import decoded_sets
from powsm.score.rates import Scores
from powsm.score.results import read_history
from powsm.tasks import LID

log = logging.getLogger("ablate")
HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--plan", type=Path, required=True, help="conf/ablation_*.yaml")
    add("--dump", type=Path, required=True, help="dump/raw")
    add("--token_dir", type=Path, required=True, help="of stage 5")
    add("--stats", type=Path, help="feats_stats.npz of stage 10")
    add("--out", type=Path, required=True, help="folder of the experiments and tables")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        run(options, Plan.load(options.plan))
    except (ValueError, OSError) as err:
        raise SystemExit(f"ablate.py: error: {err}") from err
    except subprocess.CalledProcessError as err:
        raise SystemExit(f"ablate.py: error: {err.cmd[1]} failed, see above") from err


def run(options: argparse.Namespace, plan: Plan) -> None:
    scores: dict[str, dict[Path, Scores]] = {}
    costs: dict[str, ablation.Cost] = {}
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
    options: argparse.Namespace, plan: Plan, variant: Variant, exp: Path
) -> ablation.Cost:
    """Train a variant, or go on with it, unless it is at its last epoch."""
    record = exp / "variant.yaml"
    if record.exists():
        before = yaml.safe_load(record.read_text(encoding="utf-8"))
        if changed := ablation.changed_settings(before, variant.settings):
            raise ValueError(
                f"{exp} was trained with other {' '.join(changed)}; remove the folder, "
                "or give the variant another name"
            )
    with atomic_write(record) as file:
        yaml.safe_dump(dict(variant.settings), file, allow_unicode=True)
    history = read_history(exp)
    averaged = list(exp.glob("valid.*.ave.pth"))
    last = variant.settings["max_epoch"]
    if not (history and history[-1]["epoch"] == last and averaged):
        command = [sys.executable, str(HERE / "train.py")]
        command += ["--config", str(plan.config), "--dump", str(options.dump)]
        command += ["--token_dir", str(options.token_dir), "--exp", str(exp)]
        command += ["--stats", str(options.stats)] if options.stats else []
        subprocess.run([*command, "--set", *variant.overrides], check=True)
        history = read_history(exp)
    return ablation.Cost(history[-1]["updates"], history[-1]["seconds"])


def decode(
    options: argparse.Namespace, plan: Plan, variant: Variant, exp: Path
) -> dict[Path, Scores]:
    """Decode what the variant can, and score the tasks it learned."""
    profiles = variant.profiles(plan)
    command = [sys.executable, str(HERE / "decode.py"), "--exp", str(exp)]
    command += ["--dump", str(options.dump), "--sets", *plan.sets]
    subprocess.run([*command, "--profiles", *map(str, profiles)], check=True)
    return {
        decoded.place: decoded.score(options.dump)
        for profile in profiles
        for decoded in decoded_sets(exp / profile.stem, plan.sets)
        if decoded.task in (*variant.tasks(), LID)
    }


if __name__ == "__main__":
    main()
