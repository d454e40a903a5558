"""The sets of published tables, `conf/tables/sets.yaml`: sizes, and where they lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from powsm.report.paper.spec import TableError, check_record
from powsm.settings import load_yaml

SETS_FILE = "sets.yaml"


@dataclass(frozen=True)
class TestSet:
    """A set of a published table.

    Attributes:
        hours: as published; None where no source says.
        access: where it comes from, and its licence if that is in the way.
        variable: of `db.sh`: names the folder from which the set is prepared; empty
            if it comes with IPAPack++.
        n_utts: as published; None where no source says.
        copy_hours: of a complete copy, where that is not what was published.
        why: why it is not.
        hours_by_lang: as published, of single languages.
        part_of: the set of which this is the part in `langs`; made of it when wanted.
        langs: ISO 639-3 codes, of a part.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    hours: float | None
    access: str
    variable: str = ""
    n_utts: int | None = None
    copy_hours: float | None = None
    why: str = ""
    hours_by_lang: Mapping[str, float] = field(default_factory=dict)
    part_of: str = ""
    langs: tuple[str, ...] = ()

    def source(self, environment: Mapping[str, str]) -> Path | None:
        """The folder from which the set is prepared, if its variable names one."""
        value = environment.get(self.variable) if self.variable else None
        return Path(value) if value else None


def load_sets(path: Path) -> dict[str, TestSet]:
    """Read `sets.yaml`: what is known of the sets of all tables.

    Raises:
        TableError: a set without hours or access, or with an unknown key.
    """
    record = load_yaml(path)
    sets = {}
    for name, raw in record.items():
        check_record(raw, TestSet, f"{path}: {name}", {"hours", "access"})
        known_part = {"langs": tuple(raw.get("langs", ()))}
        sets[name] = TestSet(**raw | known_part | {"access": raw["access"].strip()})
        if sets[name].part_of and sets[name].part_of not in record:
            raise TableError(f"{path}: {name}: part of unknown {sets[name].part_of}")
    return sets
