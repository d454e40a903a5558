#!/usr/bin/env python3
"""Fill a published table with the scores of a model.

Prepares sets whose source is known (db.sh), decodes what is missing (local/decode.py),
scores it as the paper did, and prints the published numbers beside ours, with intervals
and verdicts, and the cells that stay empty and why. The same goes to
<exp>/tables/<table>.{md,csv,tex}.
"""

import argparse
import logging
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from powsm.corpora.evaluation.sets import prepare_eval_set
from powsm.files.transcripts import read_transcripts
from powsm.files.whole import atomic_write
from powsm.languages import lang_code
from powsm.report.paper import render
from powsm.report.paper.fill import TAKEN_FOR, fill, hyp_file
from powsm.report.paper.plan import (
    PlannedDecode,
    describe,
    plan,
    results_folder,
    size_faults,
)
from powsm.report.paper.spec import (
    SETS_FILE,
    Query,
    Table,
    load_sets,
    load_table,
)
from powsm.score.decoded import DecodedSet
from powsm.score.rates import Scores

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--table", required=True, help="4, lid, figure2, prism3 or a YAML file")
    models = "experiment folder, packed folder or archive, or Hub tag"
    add("--model", help=f"{models}; without it, what the table would take")
    add("--exp", type=Path, help="for results; default: the model's, or in --expdir")
    add("--expdir", type=Path, default=Path("exp"), help="default: exp")
    add("--dump", type=Path, default=Path("dump/raw"), help="default: dump/raw")
    add("--data", type=Path, default=Path("data"), help="for sets that are prepared")
    add("--conf", type=Path, default=ROOT / "conf", help="with decode_*.yaml, tables/")
    add("--device", help="for decoding; default: cuda if there is one")
    add("--dry_run", action="store_true", help="print the plan with time and disk")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.exp is None and options.model:
        options.exp = results_folder(options.model, options.expdir)
    try:
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
    except (ValueError, OSError, subprocess.CalledProcessError) as err:
        raise SystemExit(f"reproduce.py: error: {err}") from err


def find_table(name: str, folder: Path) -> Path:
    """`4` is table4.yaml, `lid` table_lid.yaml, `prism3` prism3.yaml."""
    if name.endswith(".yaml"):
        return Path(name)
    tried = [folder / f"{head}{name}.yaml" for head in ("table", "table_", "")]
    for path in tried:
        if path.exists():
            return path
    known = sorted(p.stem for p in folder.glob("*.yaml") if p.name != SETS_FILE)
    raise ValueError(f"no table {name!r} in {folder}; there are {' '.join(known)}")


def prepare(planned: list[PlannedDecode], options: argparse.Namespace) -> None:
    """Make the sets that are not there and whose source is known."""
    for name, source in {item.query.set: item.source for item in planned}.items():
        if source is not None:
            prepare_eval_set(name, source, options.data, options.dump)


def decode(planned: list[PlannedDecode], options: argparse.Namespace) -> None:
    """Decode what is not there, in one call for each profile."""
    missing = defaultdict(list)
    for item in planned:
        if not item.is_done and not item.why_not:
            missing[item.query.profile].append(item.query.set)
    for profile, names in missing.items():
        command = [sys.executable, str(ROOT / "local/decode.py")]
        command += ["--exp", str(options.exp), "--dump", str(options.dump)]
        command += ["--model", options.model or str(options.exp)]
        command += ["--profiles", str(options.conf / f"{profile}.yaml")]
        command += ["--sets", *dict.fromkeys(names)]
        if options.device:
            command += ["--device", options.device]
        subprocess.run(command, check=True)


def report(
    table: Table,
    planned: list[PlannedDecode],
    faults: list[str],
    options: argparse.Namespace,
) -> None:
    """Score, print and write the table."""
    why_not = {(p.query.profile, p.query.set, p.query.task): p.why_not for p in planned}

    def scored(query: Query) -> Scores | str:
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
        logging.info("wrote %s", path)


def with_taken_for(scores: Scores, hyps: dict[str, str]) -> Scores:
    """Add a column for each detected language: which utterances were taken for it."""
    codes = [lang_code(hyps[utt_id].strip("<>")) for utt_id in scores.utt_ids]
    columns = {
        f"{TAKEN_FOR}{code}": np.array([c == code for c in codes], np.int64)
        for code in sorted(set(filter(None, codes)))
    }
    return replace(scores, columns={**scores.columns, **columns})


if __name__ == "__main__":
    main()
