"""What the stages of a recipe cost with these settings, as its costs.yaml says it.

Training is scaled from the configuration that the file knows, decoding follows from the
sets in --dump; all else is as the file says.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.cli.options import add_shared, whole
from powsm.errors import PowsmError

if TYPE_CHECKING:
    from powsm.decode.profile import Profile


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what costs follow from, which `powsm check` reads as well."""
    add = parser.add_argument
    add("--costs", type=Path, default=Path("costs.yaml"), help="of the recipe")
    add_shared(parser, "--config", "--set")
    add_shared(parser, "--dump", required=False, default=Path("dump/raw"))
    add("--test_sets", nargs="*", default=[], help="folders wanted in --dump")
    add("--trainer", choices=["powsm", "espnet"], help="default: as the config says")
    add("--subset", help="of the training set, as stage 4 takes it")
    nbpe = "pieces of the vocabulary; default: as --costs has it"
    add("--nbpe", type=whole(1), help=nbpe)
    add("--goes_on_from", type=Path, help="finished experiment that it continues")
    add("--ngpu", type=whole(), default=0, help="GPUs; 0 trains and decodes on the CPU")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)
    add_shared(parser, "--profiles", required=False, default=[])


def run(options: argparse.Namespace) -> None:
    for stage, row in cost_rows(options).items():
        print(f"{stage}:")
        for key, value in row.items():
            print(f"  {key}: {value}")


def cost_rows(options: argparse.Namespace) -> dict[int, dict[str, str]]:
    """The recipe's rows, those of training and decoding by the settings."""
    from powsm.cluster.costs import N_SPECIAL, packing_rows, read_costs, training_row
    from powsm.prepare.filters import kept_hours
    from powsm.prepare.subset import SUBSET_HOURS
    from powsm.settings import apply_overrides, load_with_base

    if options.subset not in (None, *SUBSET_HOURS):
        known_subsets = " ".join(SUBSET_HOURS)
        raise PowsmError(f"--subset {options.subset}: expected one of {known_subsets}")
    rows = read_costs(options.costs)
    if known := rows.get(11):
        base = load_with_base(options.costs.parent / known["config"])
        settings = apply_overrides(load_with_base(options.config), options.overrides)
        n_tokens = int(options.nbpe or known["nbpe"]) + N_SPECIAL
        hours = kept_hours(options.dump / "train") or SUBSET_HOURS.get(options.subset)
        rows |= packing_rows(rows, base, settings, n_tokens)
        rows[11] = training_row(
            known,
            base,
            settings,
            n_gpus=options.ngpu,
            trainer=options.trainer or "",
            hours=hours,
            epochs_before=epochs_of(options.goes_on_from),
            n_tokens=n_tokens,
        )
    if 12 in rows and options.ngpu:
        from powsm.decode.profile import Profile

        profiles = [Profile.load(path) for path in options.profiles]
        rows[12] = _decoding(rows[12], profiles, options)
    return rows


def epochs_of(exp: Path | None) -> int:
    """Epochs of a finished experiment; 0 without one, or where it is not there."""
    from powsm.settings import load_yaml

    if exp is None or not (exp / "config.yaml").exists():
        return 0
    return load_yaml(exp / "config.yaml").get("max_epoch", 0)


def _decoding(
    known: dict[str, str], profiles: list["Profile"], options: argparse.Namespace
) -> dict[str, str]:
    """The row of stage 12; as it is known where a set is missing, and which."""
    from powsm.cluster.costs import decoding_row
    from powsm.prepare.filters import kept_hours
    from powsm.report.paper.plan import PUBLISHED_RTF

    sets = [options.dump / name for name in options.test_sets]
    sets = sets or sorted(options.dump.glob("test_*"))
    hours = [kept_hours(folder) for folder in sets]
    missing = [s.name for s, h in zip(sets, hours, strict=True) if h is None]
    if missing or not hours:
        which = ", ".join([*missing[:1], *(["..."] if missing[1:] else [])])
        n = f"{len(missing)} of {len(sets)} sets" if missing else "all sets"
        why = f"{n} missing in {options.dump}{which and f': {which}'}"
        return {**known, "basis": f"{why}; their hours are not known"}
    passes = sum(len(profile.tasks) for profile in profiles)
    return decoding_row(
        known,
        hours=passes * sum(h for h in hours if h is not None),
        rtf=PUBLISHED_RTF,
        n_gpus=options.ngpu,
        source="others' measurement of the released POWSM, greedy, on an H200",
    )
