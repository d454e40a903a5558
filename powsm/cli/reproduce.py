"""Fill a published table with the scores of a model.

Prepares sets whose source is known (db.sh), decodes what is missing (powsm decode),
scores it as the paper did, and prints the published numbers beside ours, with intervals
and verdicts, and the cells that stay empty and why. The same goes to
<exp>/tables/<table>.{md,csv,tex}.
"""

import argparse
import logging
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.cli.options import MODEL, add_shared
from powsm.cli.run import run_verb
from powsm.errors import PowsmError
from powsm.files.whole import atomic_write

if TYPE_CHECKING:
    from powsm.report.paper.plan import PlannedDecode
    from powsm.report.paper.spec import Query, Table
    from powsm.score.rates import Scores

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--table", required=True, help="4, lid, figure2, prism3 or a YAML file")
    add("--model", help=f"{MODEL}; without it, what the table would take")
    add("--exp", type=Path, help="for results; default: the model's, or in --expdir")
    add("--expdir", type=Path, default=Path("exp"))
    add_shared(parser, "--dump", required=False, default=Path("dump/raw"), help=None)
    add_shared(parser, "--data", help="for sets that are prepared")
    conf = "with decode_*.yaml and tables/"
    add("--conf", type=Path, default=Path("conf"), help=conf)
    add_shared(parser, "--device")
    add("--dry_run", action="store_true", help="print the plan with time and disk")


def run(options: argparse.Namespace) -> None:
    from powsm.report.paper.plan import describe, plan, results_folder, size_faults
    from powsm.report.paper.spec import SETS_FILE, load_sets, load_table

    if options.exp is None and options.model:
        options.exp = results_folder(options.model, options.expdir)
    table = load_table(find_table(options.table, options.conf / "tables"))
    sets = load_sets(options.conf / "tables" / SETS_FILE)
    planned = plan(table, options.exp, options.dump, sets, os.environ)
    if options.dry_run:
        print(describe(planned, options.exp))
        return
    if options.exp is not None:
        prepare(planned, options)
    decode(planned, options)
    names = [item.query.set for item in planned]
    report(table, planned, size_faults(names, options.dump, sets), options)


def find_table(name: str, folder: Path) -> Path:
    """`4` is table4.yaml, `lid` table_lid.yaml, `prism3` prism3.yaml."""
    if name.endswith(".yaml"):
        return Path(name)
    tried = [folder / f"{head}{name}.yaml" for head in ("table", "table_", "")]
    for path in tried:
        if path.exists():
            return path
    from powsm.report.paper.spec import SETS_FILE

    known = sorted(p.stem for p in folder.glob("*.yaml") if p.name != SETS_FILE)
    raise PowsmError(f"no table {name!r} in {folder}; there are {' '.join(known)}")


def prepare(planned: list["PlannedDecode"], options: argparse.Namespace) -> None:
    """Make the sets that are not there and whose source is known."""
    from powsm.corpora.evaluation.sets import prepare_eval_set

    for name, source in {item.query.set: item.source for item in planned}.items():
        if source is not None:
            prepare_eval_set(name, source, options.data, options.dump)


def decode(planned: list["PlannedDecode"], options: argparse.Namespace) -> None:
    """Decode what is not there, in one call for each profile."""
    missing = defaultdict(list)
    for item in planned:
        if not item.is_done and not item.why_not:
            missing[item.query.profile].append(item.query.set)
    for profile, names in missing.items():
        command = ["decode", "--exp", options.exp, "--dump", options.dump]
        command += ["--model", options.model or options.exp]
        command += ["--profiles", options.conf / f"{profile}.yaml"]
        command += ["--sets", *dict.fromkeys(names)]
        command += ["--device", options.device] if options.device else []
        run_verb(*command)


def report(
    table: "Table",
    planned: list["PlannedDecode"],
    faults: list[str],
    options: argparse.Namespace,
) -> None:
    """Score, print and write the table."""
    from powsm.files.transcripts import read_transcripts
    from powsm.report.paper import render
    from powsm.report.paper.fill import fill, hyp_file
    from powsm.score.decoded import DecodedSet

    why_not = {(p.query.profile, p.query.set, p.query.task): p.why_not for p in planned}

    def scored(query: "Query") -> "Scores | str":
        path = hyp_file(options.exp, query) if options.exp else None
        if path is None:
            why = why_not[query.profile, query.set, query.task]
            return why or f"{query.profile} does not decode {query.task}"
        scores = DecodedSet(path.parent).score(options.dump, table.cleaning)
        if query.task != "lid":
            return scores
        return with_taken_for(scores, read_transcripts(path))

    cells = fill(table, scored)
    system = options.exp.resolve().name if options.exp else "ours"
    text = render.markdown(table, cells, system)
    if faults:
        text += "\nSets that are not the published ones:\n\n"
        text += "".join(f"- {fault}\n" for fault in faults)
    print(text)
    if options.exp is None:
        return
    outputs = {
        "md": text,
        "csv": render.to_csv(table, cells),
        "tex": render.to_latex(table, cells, system),
    }
    for extension, content in outputs.items():
        path = options.exp / "tables" / f"{table.name}.{extension}"
        with atomic_write(path) as file:
            file.write(content)
        log.info("wrote %s", path)


def with_taken_for(scores: "Scores", hyps: dict[str, str]) -> "Scores":
    """Add a column for each detected language: which utterances were taken for it."""
    import numpy as np

    from powsm.languages import lang_code
    from powsm.report.paper.fill import TAKEN_FOR

    codes = [lang_code(hyps[utt_id].strip("<>")) for utt_id in scores.utt_ids]
    columns = {
        f"{TAKEN_FOR}{code}": np.array([c == code for c in codes], np.int64)
        for code in sorted(set(filter(None, codes)))
    }
    return replace(scores, columns={**scores.columns, **columns})
