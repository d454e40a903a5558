"""Rows of other systems, filled from files of what they wrote."""

from pathlib import Path

import pytest
from experiment_builder import PHONES, make_dump

from powsm.cli.main import main
from powsm.report.paper.outputs import FileScores, OutputsError, outputs_of
from powsm.report.paper.spec import TableError, load_table

ROOT = Path(__file__).parents[3]
TABLE = """\
title: Tones
paper: a paper, table 1
metric: PFER
task: pr
profile: ctc_greedy
cleaning: prism
references: raw
source: the paper
columns:
  - {name: Tone, set: test_tone}
  - {name: Absent, set: test_absent}
rows:
  - {name: Allosaurus, phone_map: allosaurus, cells: {Tone: 12.50}}
  - {name: "ZIPA, large", phone_map: zipa, cells: {Tone: 3.00}}
  - {name: POWSM, ours: {}, cells: {Tone: 30.1}}
"""


@pytest.fixture
def place(tmp_path):
    folder = make_dump(tmp_path / "dump")
    raw = "".join(f"{u} {''.join(ref)}\n" for u, (_, ref, _) in PHONES.items())
    (folder / "ref.raw.ipa").write_text(raw)
    (tmp_path / "table.yaml").write_text(TABLE)
    (tmp_path / "allo").mkdir()
    write(tmp_path / "allo/test_tone.txt", {u: r for u, (_, r, _) in PHONES.items()})
    return tmp_path


def write(path: Path, phones: dict[str, list[str]]) -> None:
    path.write_text("".join(f"{u} {' '.join(p)}\n" for u, p in phones.items()))


def reproduce(place: Path, *outputs: str) -> int:
    where = ("--dump", str(place / "dump"), "--conf", str(ROOT / "conf"))
    table = ("--table", str(place / "table.yaml"))
    return main(["reproduce", *table, *where, "--outputs", *outputs]) or 0


def test_row_of_another_system_is_filled_from_its_files(place, capsys):
    # the table is of raw references, whatever the normaliser made of them
    made = place / "dump/test_tone/ref.ipa"
    made.write_text(made.read_text().replace("/p//i/", "/m//u/"))
    assert reproduce(place, f"Allosaurus={place / 'allo'}") == 0
    said = capsys.readouterr().out
    assert f"| Allosaurus: {place / 'allo'} | 0.00 |  |" in said
    assert "(Absent): set not found: " in said  # the other column
    assert "--outputs 'ZIPA, large=FOLDER' takes its outputs" in said
    assert "POWSM:" not in said.partition("## Paper")[0]


def test_files_are_scored_as_published_and_what_that_does_is_said(
    place, capsys, caplog
):
    heard = {u: ref for u, (_, ref, _) in PHONES.items()}
    write(place / "allo/test_tone.txt", heard | {"tone_d_spa": ["k", "o", "ә"]})
    assert reproduce(place, f"Allosaurus={place / 'allo'}") == 0
    # the published script skips a Cyrillic schwa, and no error is left
    assert f"| Allosaurus: {place / 'allo'} | 0.00 |" in capsys.readouterr().out
    assert "1 of 13 units are read otherwise by the cleaning prism" in caplog.text
    assert "(ә=1)" in caplog.text


def test_a_unit_that_the_system_does_not_have_is_refused_by_name(place):
    table = load_table(place / "table.yaml")
    heard = {u: ref for u, (_, ref, _) in PHONES.items()}
    write(place / "allo/test_tone.txt", heard | {"tone_b_eng": ["p", "X"]})
    scores = FileScores(place / "allo", place / "dump", table, "allosaurus")
    query = table.queries_of(table.rows[0])[0]
    with pytest.raises(OutputsError, match=r"test_tone.txt: tone_b_eng: X not in"):
        scores(query)
    # a row without a map takes what it is given
    assert not isinstance(FileScores(place / "allo", place / "dump", table)(query), str)
    (place / "allo/test_tone.jsonl").write_text("{}")
    with pytest.raises(OutputsError, match="of one set; keep one"):
        scores(query)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["Allosaur=x"], "no row 'Allosaur' of another system; expected ROW=FOLDER"),
        (["POWSM=."], "no row 'POWSM' of another system"),
        (["x"], "no row ''"),
        (["Allosaurus=no/such"], "no folder 'no/such'"),
        (["Allosaurus=.", "Allosaurus=."], "given twice"),
    ],
)
def test_outputs_that_are_no_row_are_refused(place, given, message):
    with pytest.raises(OutputsError, match=message):
        outputs_of(given, load_table(place / "table.yaml"))


def test_phone_map_of_a_row_is_one_that_there_is(place):
    for old, new in (("map: zipa", "map: zip"), ("ours: {}", "ours: {}, phone_map: a")):
        (place / "table.yaml").write_text(TABLE.replace(old, new))
        with pytest.raises(TableError, match="phone_map"):
            load_table(place / "table.yaml")
