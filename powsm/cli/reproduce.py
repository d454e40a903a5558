"""Fill a published table with the scores of models, or test the paper's claims.

Prepares sets whose source is known (db.sh), decodes what is missing (powsm decode),
scores it as the paper did, and prints the published numbers beside ours, with intervals
and verdicts, and the cells that stay empty and why. A row takes the models that were
trained as it says, and no others. The same goes to
<exp>/tables/<table>.{md,csv,tex} of the first experiment.
"""

import argparse
import logging
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.cli.options import MODEL, add_shared, refuse_unused
from powsm.cli.run import run_verb
from powsm.errors import PowsmError
from powsm.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from powsm.report.paper.fill import Filled, System
    from powsm.report.paper.plan import PlannedDecode
    from powsm.report.paper.spec import Table

log = logging.getLogger(__name__)

ROLES = ("seen", "unseen", "words", "g2p")  # of the sets of a claim


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    tables = "1 to 13, lid, figure2, figure3, prism3 or a YAML file"
    what.add_argument("--table", help=tables)
    test = "test the paper's claims instead"
    what.add_argument("--claims", action="store_true", help=test)
    add("--model", help=f"{MODEL}; without it, what the table would take")
    exps = "experiments, each in the rows of its training; with --model: for results"
    add("--exp", type=Path, nargs="+", default=[], help=exps)
    others = "fill rows with models of another training as well, and say so"
    add("--any_training", action="store_true", help=others)
    kind = "--model is another's, of this kind, decoded through stock ESPnet"
    add("--baseline", choices=("owls", "owsm_ctc"), help=kind)
    files = "phones that another system wrote, a file a set, such as test_timit.txt; "
    files += "the row is scored as published"
    add("--outputs", nargs="+", default=[], metavar="ROW=FOLDER", help=files)
    add("--expdir", type=Path, default=Path("exp"))
    add_shared(parser, "--dump", required=False, default=Path("dump/raw"), help=None)
    add_shared(parser, "--data", help="for sets that are prepared")
    conf = "with decode_*.yaml and tables/"
    add("--conf", type=Path, default=Path("conf"), help=conf)
    add_shared(parser, "--device")
    for role in ROLES:
        sets = "sets of --claims of that kind, or languages of one: SET:eng,fra"
        add(f"--{role}", nargs="+", metavar="SET", help=sets)
    incomplete = "make smaller sets of copies that lack parts of their corpus"
    add("--allow_incomplete", action="store_true", help=incomplete)
    add("--dry_run", action="store_true", help="print the plan with time and disk")


@dataclass(frozen=True)
class _Model:
    """An experiment folder for results, and the model that decodes into it."""

    exp: Path
    source: str


def models_of(options: argparse.Namespace) -> list[_Model]:
    """The models that were named.

    Raises:
        PowsmError: --model with several --exp, an --exp that holds no experiment, or
            two of one name, by which tables know them.
    """
    from powsm.report.paper.plan import results_folder
    from powsm.score.decoded import decoded_sets

    if options.baseline and not options.model:
        raise PowsmError("--baseline says what --model is; name the model")
    if options.model and len(options.exp) > 1:
        raise PowsmError("--model decodes into one --exp; give the others alone")
    if options.model:
        exp = options.exp or [results_folder(options.model, options.expdir)]
        return [_Model(exp[0], options.model)]
    for exp in options.exp:
        if not (exp / "config.yaml").exists() and not decoded_sets(exp):
            raise PowsmError(
                f"{exp}: no experiment: neither config.yaml nor anything that stage 12 "
                "decoded; name the folder of a training, or a model by --model"
            )
    if len({exp.resolve().name for exp in options.exp}) < len(options.exp):
        raise PowsmError(
            f"--exp {' '.join(map(str, options.exp))}: two folders of one name, by "
            "which tables know them; give each once, or rename one"
        )
    return [_Model(exp, str(exp)) for exp in options.exp]


def run(options: argparse.Namespace) -> None:
    from powsm.report.paper.sets import SETS_FILE, load_sets
    from powsm.report.paper.spec import load_table

    why = "sets by their role are of --claims"
    refuse_unused(options, *ROLES, why=why, unless=options.claims)
    why = "claims are of models that were trained as the paper says"
    of_tables = ("any_training", "baseline", "outputs")
    refuse_unused(options, *of_tables, why=why, unless=not options.claims)
    options.sets = load_sets(options.conf / "tables" / SETS_FILE)
    models = models_of(options)
    if options.claims:
        claims(models, options)
        return
    table = load_table(find_table(options.table, options.conf / "tables"))
    if options.dry_run:
        print(dry_run(table, models, options))
        return
    report(table, models, options)


def find_table(name: str, folder: Path) -> Path:
    """`4` is table4.yaml, `lid` table_lid.yaml, `prism3` prism3.yaml."""
    if name.endswith(".yaml"):
        return Path(name)
    tried = [folder / f"{head}{name}.yaml" for head in ("table", "table_", "")]
    for path in tried:
        if path.exists():
            return path
    from powsm.report.paper.claims import CLAIMS_FILE
    from powsm.report.paper.sets import SETS_FILE

    others = (SETS_FILE, CLAIMS_FILE)
    known = sorted(p.stem for p in folder.glob("*.yaml") if p.name not in others)
    raise PowsmError(f"no table {name!r} in {folder}; there are {' '.join(known)}")


def planned_of(
    table: "Table", model: _Model | None, options: argparse.Namespace
) -> list["PlannedDecode"]:
    """The decodings that the rows of a model need; those of all rows without one."""
    from powsm.report.paper.fill import System
    from powsm.report.paper.plan import plan
    from powsm.report.paper.systems import trained_of

    exp, rows = None, None
    if model is not None:
        exp = model.exp
        if options.baseline:
            other = System(exp.name, lambda query: "", baseline=model.source)
            rows = [row for row in table.rows if other.is_of(row)]
        elif trained := trained_of(exp, model.source):
            rows = table.rows_of(trained, options.any_training)
        elif not options.any_training:
            rows = [row for row in table.rows if row.training is None]
    return plan(table, exp, options.dump, options.sets, os.environ, rows)


def dry_run(table: "Table", models: list[_Model], options: argparse.Namespace) -> str:
    """What a table still needs: for each model, and the trainings of its rows."""
    from powsm.report.paper.costs import describe_trainings
    from powsm.report.paper.plan import describe
    from powsm.report.paper.systems import is_decoded

    parts = []
    for model in models or [None]:
        planned = planned_of(table, model, options)
        name = f"{model.exp}:\n" if model else ""
        if is_decoded(table):
            lines = name + describe(planned, model.exp if model else None)
            parts.append("\n".join([lines, *left_out(table, model, options)]))
    parts.append(describe_trainings(table))
    return "\n\n".join(filter(None, parts))


def left_out(
    table: "Table", model: _Model | None, options: argparse.Namespace
) -> list[str]:
    """A line for each row of ours that a model does not fill, and why."""
    from powsm.report.paper.fill import System, why_nobody
    from powsm.report.paper.systems import trained_of

    if model is None or options.baseline:
        return []
    trained = trained_of(model.exp, model.source)
    system = System(model.exp.name, lambda query: "", trained)
    rows = [row for row in table.rows if row.ours is not None and row.training]
    if options.any_training:
        rows = [row for row in rows if not system.would_fill(row)]
    return [
        f"leaves {row.name}: {why_nobody(row, [system])}"
        for row in rows
        if system.differences(row)
    ]


def prepare(planned: list["PlannedDecode"], options: argparse.Namespace) -> None:
    """Make the missing sets whose source is known, and parts of sets."""
    from powsm.corpora.evaluation.part import write_part
    from powsm.corpora.evaluation.sets import prepare_eval_set

    how = {"allow_incomplete": options.allow_incomplete}
    for name, source in {item.query.set: item.source for item in planned}.items():
        if source is not None:
            prepare_eval_set(name, source, options.data, options.dump, **how)
    for name, whole in {i.query.set: i.part_of for i in planned if i.part_of}.items():
        write_part(options.dump / whole, options.dump / name, options.sets[name].langs)


def decode(
    planned: list["PlannedDecode"], model: _Model, options: argparse.Namespace
) -> None:
    """Decode what is missing, or of other settings or weights, a call a profile.

    Results of which the weights are not there are taken as they are.
    """
    from powsm.report.paper.fill import hyp_file

    is_elsewhere = model.source != str(model.exp)
    can_decode = is_elsewhere or any(model.exp.glob("valid.*.ave*.pth"))
    missing = defaultdict(list)
    for item in planned:
        found = hyp_file(model.exp, item.query, options.sets) if item.is_done else None
        if item.why_not or (found and (options.baseline or not can_decode)):
            continue
        # perhaps of the whole set of which it is a part
        name = found.parents[1].name if found else item.query.set
        missing[item.query.profile].append(name)
    if options.baseline:
        decode_baseline(missing, model, options)
        return
    for profile, names in missing.items():
        command = ["decode", "--exp", model.exp, "--model", model.source]
        command += ["--profiles", options.conf / f"{profile}.yaml"]
        command += ["--dump", options.dump, "--sets", *dict.fromkeys(names)]
        command += ["--device", options.device] if options.device else []
        run_verb(*command)


def decode_baseline(
    missing: "Mapping[str, list[str]]", model: _Model, options: argparse.Namespace
) -> None:
    """Decode sets with a model of others."""
    if not missing:
        return
    from powsm.cli.options import device
    from powsm.decode.recordings.baseline import load_baseline, recognise_set

    recognise = load_baseline(model.source, options.baseline, device(options.device))
    for profile, names in missing.items():
        for name in dict.fromkeys(names):
            out = model.exp / profile / name / "asr"
            recognise_set(recognise, options.dump / name, out)


def system_for(
    model: _Model, planned: list["PlannedDecode"], options: argparse.Namespace
) -> "System":
    """A model with its scores, missing ones decoded but for a plan alone."""
    from powsm.report.paper.systems import ExperimentScores, system_of

    if not options.dry_run:
        prepare(planned, options)
        decode(planned, model, options)
    scores = ExperimentScores(
        *(model.exp, options.dump, options.sets, tuple(planned)),
        is_baseline=bool(options.baseline),
    )
    any_training = options.any_training
    return system_of(model.exp, scores, model.source, any_training=any_training)


def systems_for(
    table: "Table", models: list[_Model], options: argparse.Namespace
) -> tuple[list["System"], list[str]]:
    """The models with their scores, missing ones decoded; faults of set sizes."""
    from powsm.report.paper.outputs import outputs_of, system_of_outputs
    from powsm.report.paper.plan import plan_queries, size_faults
    from powsm.report.paper.systems import dump_system, is_of_hours

    if is_of_hours(table):
        return [dump_system(options.dump)], []
    systems = []
    names: list[str] = []
    for model in models:
        planned = planned_of(table, model, options)
        systems.append(system_for(model, planned, options))
        names += [item.query.set for item in planned]
    for row, folder in outputs_of(options.outputs, table):
        queries = table.queries_of(row)
        planned = plan_queries(queries, None, options.dump, options.sets, os.environ)
        prepare(planned, options)
        absent = {item.query.set: item.why_not for item in planned}
        systems.append(system_of_outputs(row, folder, options.dump, table, absent))
        names += [query.set for query in queries]
    return systems, size_faults(names, options.dump, options.sets)


def of_other_sizes(faults: list[str]) -> str:
    """What the end of a report says of sets that are not as large as published."""
    if not faults:
        return ""
    lines = "".join(f"- {fault}\n" for fault in faults)
    return f"\nSets that are not the published ones:\n\n{lines}"


def report(table: "Table", models: list[_Model], options: argparse.Namespace) -> None:
    """Score, print and write the table."""
    from powsm.report.paper import render
    from powsm.report.paper.fill import fill
    from powsm.report.paper.systems import confusion_tables

    systems, faults = systems_for(table, models, options)
    cells = fill(table, systems)
    text = render.markdown(table, cells) + of_other_sizes(faults)
    if table.name == "figure3":
        filled = {cell.system for cell in cells if cell.ours is not None}
        exps = [m.exp for m in models if m.exp.resolve().name in filled]
        text += confusion_tables(exps, options.dump)
    print(text)
    if not models:
        return
    folder = models[0].exp / "tables"
    outputs = {"md": text, "csv": render.to_csv(table, cells)}
    outputs["tex"] = render.to_latex(table, cells)
    for extension, content in outputs.items():
        path = folder / f"{table.name}.{extension}"
        write_whole(path, content)
        log.info("wrote %s", path)
    if table.name == "figure2":
        draw(table, models, cells, folder / "figure2.png")


def draw(
    table: "Table", models: list[_Model], cells: list["Filled"], path: Path
) -> None:
    """The curves of figure 2, of every experiment that is one of its rows."""
    from powsm.report.paper.fill import HISTORY
    from powsm.report.plots import plot_curves
    from powsm.score.results import read_history

    exps = {model.exp.resolve().name: model.exp for model in models}
    histories = {
        f"{cell.row}: {cell.system}": read_history(exps[cell.system])
        for cell in cells
        if cell.ours is not None
    }
    if not histories:
        return
    metric = table.settings["metric"].removeprefix(HISTORY)
    plot_curves(histories, metric, "validation PER of CTC, %", path)
    log.info("wrote %s", path)


def claims(models: list[_Model], options: argparse.Namespace) -> None:
    """Decode what the claims compare, and say which of them hold."""
    from powsm.report.paper.claims import (
        CLAIMS_FILE,
        check_claims,
        load_claims,
        needed,
        render_claims,
    )
    from powsm.report.paper.plan import plan_queries, size_faults
    from powsm.report.paper.spec import load_table

    listed, roles = load_claims(options.conf / "tables" / CLAIMS_FILE)
    for role in roles:
        if chosen := getattr(options, role, None):
            roles[role] = tuple(chosen)
    asked = needed(listed, roles)
    systems = []
    for model in models:
        places = (model.exp, options.dump, options.sets, os.environ)
        systems.append(system_for(model, plan_queries(asked, *places), options))
    folder = options.conf / "tables"
    tables = {
        name: load_table(find_table(name, folder))
        for name in {claim.table or claim.trainings for claim in listed} - {""}
    }
    exps = {model.exp.resolve().name: model.exp for model in models}
    outcomes = check_claims(
        listed, roles, systems, tables.__getitem__, exps, options.dump
    )
    asked += [q for c in listed if c.table for q in tables[c.table].queries()]
    faults = size_faults([q.set for q in asked], options.dump, options.sets)
    text = render_claims(outcomes) + of_other_sizes(faults)
    print(text)
    if models:
        write_whole(models[0].exp / "tables" / "claims.md", text)
