"""docs/fidelity.md against the configurations and tables that it speaks of."""

from pathlib import Path

import pytest
from test_published import PUBLISHED

from powsm.decode.profile import Profile
from powsm.formatting import markdown_table
from powsm.phones.normaliser import POLICIES
from powsm.prepare.judge import default_labels
from powsm.report.paper.fill import is_measured_otherwise
from powsm.report.paper.spec import Table, load_table
from powsm.settings import load_with_base
from powsm.train import config

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
PAGE = ROOT / "docs/fidelity.md"
TABLES = [f"table{n}" for n in range(1, 14)]
TABLES += ["figure2", "figure3", "table_lid", "prism3"]


def value_of(settings: dict, key: str) -> object:
    value: object = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def settings_table() -> str:
    """Every published setting, and what our two configurations make of it."""
    stock = load_with_base(CONF / "train_powsm.yaml")
    fast = load_with_base(CONF / "train_powsm_fast.yaml")
    rows = []
    for key, published in PUBLISHED.items():
        values = [value_of(settings, key) for settings in (stock, fast)]
        said = ["ESPnet's default" if v is None else f"`{v}`" for v in values]
        rows.append([f"`{key}`", f"`{published}`", *said])
    return markdown_table(
        ["setting", "published", "train_powsm", "train_powsm_fast"], rows
    )


def ways(table: Table) -> tuple[str, str, str]:
    """Profiles, beams and languages of a table's decodings."""
    names = dict.fromkeys(
        q.profile for q in table.queries() if not is_measured_otherwise(q.metric)
    )
    profiles = [Profile.load(CONF / f"{name}.yaml") for name in names]
    beams = sorted({p.search.beam_size for p in profiles})
    langs = list(dict.fromkeys(p.lang for p in profiles))
    return (
        " ".join(f"`{name.removeprefix('decode_')}`" for name in names) or "none",
        ", ".join(map(str, beams)) or "none",
        ", ".join(f"`{lang}`" for lang in langs) or "none",
    )


def tables_table() -> str:
    """How each table and figure is made."""
    rows = []
    for name in TABLES:
        table = load_table(CONF / f"tables/{name}.yaml")
        ours = [row for row in table.rows if row.ours is not None]
        sets = list(dict.fromkeys(q.set for q in table.queries()))
        shown = ", ".join(sets[:3]) + (f" and {len(sets) - 3} more" * (len(sets) > 3))
        references = table.references if table.cleaning else "text, languages or none"
        rows.append(
            [
                name.removeprefix("table").strip("_"),
                shown,
                f"{len(ours)} of {len(table.rows)}",
                references,
                *ways(table),
            ]
        )
    return markdown_table(
        ["N", "sets", "our rows", "references", "profiles", "beam", "language"], rows
    )


@pytest.mark.parametrize("made", [settings_table, tables_table])
def test_page_holds_what_the_configurations_say(made):
    assert made() in PAGE.read_text(encoding="utf-8"), "write this into the page:\n" + (
        made()
    )


# Deliberate differences that the page names, each with what shows it in the tree
DIFFERENCES = {
    "preprocessor_conf.speech_resolution": lambda: (
        value_of(
            load_with_base(CONF / "train_powsm.yaml"),
            "preprocessor_conf.speech_resolution",
        )
        == 0.02
    ),
    "decode_recipe": lambda: (
        Profile.load(CONF / "decode_recipe.yaml").search.maxlenratio == 0.4
    ),
    "ref.raw.ipa": lambda: load_table(CONF / "tables/table2.yaml").references == "raw",
    "pfer_ctc": lambda: (
        config.load(CONF / "train_powsm_fast.yaml")["best_model_criterion"]
        == [["valid", "pfer_ctc", "min"]]
    ),
    "stats_window": lambda: (
        config.load(CONF / "train_powsm_fast.yaml")["stats_window"] == "own"
    ),
    "window_share": lambda: (
        config.load(CONF / "train_powsm_fast.yaml")["batch_conf"]["window_share"]
        == 0.05
    ),
    "--text_policy released": lambda: (
        "text_policy=powsm_fix" in (ROOT / "scripts/s2t.sh").read_text()
    ),
    "--ipa_policy released": lambda: (
        "ipa_policy=strict" in (ROOT / "scripts/s2t.sh").read_text()
    ),
    "--ipa_labels original": lambda: (
        [default_labels(policy) for policy in POLICIES]
        == ["original", "clean", "original"]
    ),
    "min_duration": lambda: "min_duration=0.5" in (ROOT / "scripts/s2t.sh").read_text(),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_of_the_page_are_those_of_the_tree(name):
    assert f"`{name}`" in PAGE.read_text(encoding="utf-8")
    assert DIFFERENCES[name]()
