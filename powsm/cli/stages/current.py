"""Ask whether a stage's command ended well before, on the same inputs: its record.

Prints nothing where it did and what it made is there. Else it prints the record of the
inputs as they are now, for `--keep` when the command has ended. Inputs are also the
bases of settings, and of stage 11 the files that its settings name.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# What a stage makes in the folder of its record: of a training the averaged weights.
_MADE = {"2": "**/*", "5": "**/*", "10": "**/*", "11": "valid.*.pth"}
_NAMED = ("utt2weight", "augment.noise.folder", "model_conf.teacher")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--record", type=Path, required=True, help="of the command that ended")
    add("--stage", choices=("2", "5", "10", "11"), required=True)
    add("--inputs", type=Path, nargs="*", default=[], help="files and folders it reads")
    keep = "write the record that is given as input, with what was made"
    add("--keep", action="store_true", help=keep)
    what = {"metavar": "-- PROGRAM ARGUMENT...", "help": "the command"}
    add("program", nargs=argparse.REMAINDER, **what)


def run(options: argparse.Namespace) -> None:
    from powsm.files.current import is_current, record_text, states_below

    if options.keep:
        return keep(options.record, json.load(sys.stdin), _MADE[options.stage])
    stage = f"stage {options.stage}"
    read = [*options.inputs, *_bases(options.inputs)]
    if options.stage == "11":
        read += _named(options.program)
    made_from = {"command": options.program, "inputs": states_below(read)}
    if not is_current(options.record, stage, made_from):
        print(record_text(stage, made_from, {}))


def keep(path: Path, record: dict[str, object], pattern: str) -> None:
    """Write the record, of the version the command had, with the sizes of files."""
    from powsm.files.whole import write_json

    folder = path.parent
    files = [f for f in sorted(folder.glob(pattern)) if f.is_file()]
    record["outputs"] = {
        str(file.relative_to(folder)): file.stat().st_size
        for file in files
        if not file.name.startswith(".")
    }
    write_json(path, record)


def _bases(inputs: Sequence[Path]) -> Iterator[Path]:
    """The files that settings among the inputs are laid over."""
    from powsm.settings import ConfigError, with_bases

    for path in inputs:
        try:
            if path.suffix == ".yaml" and path.is_file():
                yield from with_bases(path)[1:]
        except ConfigError:  # which the command tells
            pass


def _named(program: Sequence[str]) -> Iterator[Path]:
    """What the settings of a training name and it reads, of a teacher the weights."""
    from powsm.settings import ConfigError, apply_overrides, load_with_base, value_at

    words = list(program)
    if not {"--config", "--set"} <= set(words):
        return
    config = words[words.index("--config") + 1]
    changes = words[words.index("--set") + 1 :]  # which end the command
    try:
        settings = apply_overrides(load_with_base(Path(config)), changes)
    except ConfigError:
        return
    for key in _NAMED:
        if isinstance(name := value_at(settings, key), str):
            place = Path(name)
            is_model = key == "model_conf.teacher" and place.is_dir()
            yield from sorted(place.glob("valid.*.pth")) if is_model else (place,)
