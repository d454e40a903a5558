"""Say what a model is: its parts, size, tasks, languages and phones.

powsm info exp/x
powsm info --json espnet/powsm
"""

import argparse
import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from powsm.errors import PowsmError
from powsm.languages import LANGUAGES
from powsm.tasks import TASKS

# constants of the features and running means, which are saved and not learnt
_NOT_LEARNT = re.compile(
    r"frontend\.logmel\.melmat|normalize\.(mean|std)"
    r"|.*\.(running_mean|running_var|num_batches_tracked)"
)
_MOST_HEADER = 100_000_000  # bytes of a safetensors header


def add_options(parser: argparse.ArgumentParser) -> None:
    from powsm.cli.options import MODEL, add_shared

    parser.add_argument("model", help=MODEL)
    add_shared(parser, "--model_file")
    parser.add_argument("--json", action="store_true", help="as a JSON object")


def run(options: argparse.Namespace) -> None:
    from powsm.model.find import find_model
    from powsm.settings import load_yaml

    files = find_model(options.model, options.model_file)
    config = load_yaml(files.config_file)
    facts = {
        "model": files.source,
        "weights": str(files.weights_file),
        "bytes": files.weights_file.stat().st_size,
        "parameters": n_parameters(files.weights_file),
        "network": _network(config),
        **_vocabulary(_tokens(config, files.config_file)),
        "normaliser": dict(files.normaliser) or None,
        "boundaries": _boundaries(files),
    }
    if options.json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    for name, value in facts.items():
        print(f"{name:<12}{_shown(value)}")


def _boundaries(files) -> dict[str, float] | str:
    """Where phones begin around the frames that say them, see `powsm calibrate`."""
    from dataclasses import asdict

    from powsm.decode.timing.blanks import USUAL
    from powsm.decode.timing.stored import digest, read_record, read_timing

    if read_record(files.config_file) is None:
        return "usual"
    timing = read_timing(files.config_file, digest(files.weights_file))
    return "usual" if timing == USUAL else asdict(timing)


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return f"{len(value)}: {' '.join(map(str, value))}" if value else "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    return "not recorded" if value is None else str(value)


def n_parameters(weights: Path) -> int | None:
    """Parameters in a file of weights by its header; None where only torch can tell.

    Raises:
        PowsmError: a safetensors file without a whole header.
    """
    if weights.suffix != ".safetensors":
        return None
    try:
        with open(weights, "rb") as file:
            (n_bytes,) = struct.unpack("<Q", file.read(8))
            if n_bytes > _MOST_HEADER:
                raise ValueError("the header is too long")
            header = json.loads(file.read(n_bytes))
        header.pop("__metadata__", None)
        return sum(
            math.prod(row["shape"])
            for key, row in header.items()
            if not _NOT_LEARNT.fullmatch(key)
        )
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as err:
        raise PowsmError(
            f"{weights}: damaged, no header of safetensors ({err}); get it again"
        ) from err


def _network(config: Mapping) -> dict[str, object]:
    facts: dict[str, object] = {}
    for part in ("encoder", "decoder"):
        conf = config.get(f"{part}_conf") or {}
        facts[part] = config.get(part)
        if "num_blocks" in conf:
            facts[f"{part} blocks"] = conf["num_blocks"]
        if "output_size" in conf:
            facts["size"] = conf["output_size"]
    return facts


def _tokens(config: Mapping, config_file: Path) -> list[str]:
    tokens = config.get("token_list")
    if isinstance(tokens, str):
        path = Path(tokens)
        if not path.is_file():
            raise PowsmError(f"{config_file}: token_list is {tokens}: no such file")
        tokens = path.read_text(encoding="utf-8").split("\n")
    if not isinstance(tokens, list) or not tokens:
        raise PowsmError(f"{config_file}: no token_list, expected the tokens")
    return [str(token).rstrip() for token in tokens if str(token).strip()]


def _vocabulary(tokens: list[str]) -> dict[str, object]:
    known = set(tokens)
    phones = [t.strip("/") for t in tokens if len(t) > 2 and t[0] == t[-1] == "/"]
    return {
        "tokens": len(tokens),
        "tasks": [name for name, task in TASKS.items() if task.symbol in known],
        "languages": [code for code in LANGUAGES if f"<{code}>" in known],
        "phones": phones,
    }
