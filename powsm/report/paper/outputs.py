"""Rows of other systems whose outputs come as files, a file a set.

The published numbers of such systems were made from their outputs as they are, so a
cell is, too: by the cleaning and the references of its table. The phone map of the row
says whether a file is of the system at all, and what that cleaning makes of its units.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from powsm.errors import PowsmError
from powsm.files.transcripts import HYP_FIELDS, TEXT_FIELDS, read_transcripts
from powsm.phones.alphabets import AlphabetError, to_ipa, units_of
from powsm.report.paper.fill import System
from powsm.report.paper.spec import Query, Row, Table
from powsm.score.decoded import DumpSet
from powsm.score.metrics import score_phones
from powsm.score.phone_reader import PhoneReader
from powsm.score.rates import Scores
from powsm.tasks import PHONES, TASKS

log = logging.getLogger(__name__)

_SHOWN = 5  # units named in a warning


class OutputsError(PowsmError):
    """Outputs of another system cannot be used; the message says which, and why."""


@dataclass(frozen=True)
class FileScores:
    """What the outputs of another system score, by query; for `System.score`.

    Attributes:
        folder: holds `<set>.txt`, or `.jsonl`, `.csv`, `.tsv`, `.trn`.
        dump: `dump/raw`.
        table: says how phones are read and which references count.
        phone_map: of its units; empty: they are not checked.
        absent: why a set is not there, by set.
    """

    folder: Path
    dump: Path
    table: Table
    phone_map: str = ""
    absent: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, query: Query) -> Scores | str:
        """Scores of a set.

        Raises:
            OutputsError: a unit that the phone map does not have, or several files.
            ScoreError: not the utterances of the set.
        """
        if TASKS.get(query.task) is None or TASKS[query.task].writes != PHONES:
            return "files are scored for phones alone"
        if not (self.dump / query.set).is_dir():
            missing = f"set not found: {self.dump / query.set}"
            return self.absent.get(query.set) or missing
        found = sorted(self.folder.glob(f"{query.set}.*"))
        if not found:
            return f"no file {self.folder / query.set}.*"
        if len(found) > 1:
            names = " ".join(path.name for path in found)
            raise OutputsError(f"{self.folder}: {names} are of one set; keep one")
        hyp = read_transcripts(found[0], (*HYP_FIELDS, *TEXT_FIELDS))
        if self.phone_map:
            self._check_units(found[0], hyp)
        truth = DumpSet(self.dump / query.set)
        return score_phones(
            hyp=hyp,
            ref=truth.references(PHONES, raw=self.table.references == "raw"),
            langs=truth.langs,
            speakers=truth.speakers,
            cleaning=self.table.cleaning or truth.normaliser["policy"],
        )

    def _check_units(self, path: Path, hyp: Mapping[str, str]) -> None:
        """Refuse units of no map; say how many the table reads otherwise than it."""
        counts: Counter[str] = Counter()
        for utt_id, text in hyp.items():
            try:
                counts.update(units_of(text.split(), self.phone_map))
            except AlphabetError as err:
                raise OutputsError(
                    f"{path}: {utt_id}: {err}; is it an output of this system?"
                ) from err
        reader = PhoneReader(self.table.cleaning or "strict")
        other = {
            unit: n
            for unit, n in counts.most_common()
            if reader.read(unit).phones
            != reader.read(to_ipa([unit], self.phone_map)).phones
        }
        if other:
            shown = " ".join(f"{unit}={other[unit]}" for unit in list(other)[:_SHOWN])
            log.warning(
                "%s: %d of %d units are read otherwise by the cleaning %s, as "
                "published, than by phone map %s (%s); powsm score --hyp_phone_map %s "
                "scores them by the map",
                path,
                sum(other.values()),
                counts.total(),
                self.table.cleaning or "strict",
                self.phone_map,
                shown,
                self.phone_map,
            )


def outputs_of(given: Iterable[str], table: Table) -> list[tuple[Row, Path]]:
    """`ROW=FOLDER` as a row of another system and the folder of its outputs.

    Raises:
        OutputsError: no such row, a row of ours, a row twice, or no such folder.
    """
    others = {row.name: row for row in table.rows if row.ours is None}
    pairs: dict[str, tuple[Row, Path]] = {}
    for pair in given:
        name, _, folder = pair.rpartition("=")
        if name not in others:
            raise OutputsError(
                f"--outputs {pair}: {table.name} has no row {name!r} of another "
                f"system; expected ROW=FOLDER with one of {', '.join(others)}"
            )
        if name in pairs:
            raise OutputsError(f"--outputs {pair}: {name} is given twice; keep one")
        if not Path(folder).is_dir():
            raise OutputsError(
                f"--outputs {pair}: no folder {folder!r}; it holds a file a set, such "
                "as test_voxangeles.txt with an utt_id and phones a line"
            )
        pairs[name] = (others[name], Path(folder))
    return list(pairs.values())


def system_of_outputs(
    row: Row, folder: Path, dump: Path, table: Table, absent: Mapping[str, str]
) -> System:
    """The system of a row, by its outputs; `absent` as in `FileScores`."""
    scores = FileScores(folder, dump, table, row.phone_map, absent)
    incomplete = frozenset(
        query.set
        for query in table.queries_of(row)
        if DumpSet(dump / query.set).missing
    )
    return System(str(folder), scores, incomplete=incomplete, row=row.name)
