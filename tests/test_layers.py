"""How the modules hang together: import direction, documentation, no torch in data."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import powsm

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "powsm"

# The map in the package's docstring: two spaces or more end a title.
MAP = re.findall(r"^ {4}(?:\S.*?)? {2,}(.+)$", powsm.__doc__, re.M)
LAYERS = " ".join(MAP).split()

# Preparing data and scoring do without torch, whose import takes seconds.
WITH_TORCH = """
ctc_prefix cached_decoder dataset packing phone_ctc model config checkpoint finetune
stats memory exchange resume litmodel epochs progress ranks guards train beams search
profile frames decode decodeset longform align transcribe ablation modelcard publish
upload
""".split()

FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    """The top-level module of a file: powsm/corpora/debian.py -> corpora."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    """Top-level modules of powsm that a file imports anywhere in its text."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [node.module]
            if node.module == "powsm":
                names = [f"powsm.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("powsm.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_from_earlier_layers(path):
    layer = layer_of(path)
    if layer == "__init__":
        assert imported_layers(path) == set()
        return
    assert layer in LAYERS, f"give {layer} a place in the map of powsm/__init__.py"
    allowed = {*LAYERS[: LAYERS.index(layer)], layer}
    assert imported_layers(path) <= allowed


def test_map_names_every_module_once():
    assert sorted(LAYERS) == sorted({layer_of(p) for p in FILES} - {"__init__"})


def test_import_of_a_later_layer_is_seen(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "import powsm.score\ndef f():\n    from powsm import train\n"
        "    from powsm.corpora.debian import Package\nimport powsmith.audio\n"
    )
    assert imported_layers(module) == {"score", "train", "corpora"}


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted(ROOT.glob("local/*.py")), *sorted(ROOT.glob("tests/**/*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_module_says_what_it_is_for(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} has no docstring"
    assert docstring.splitlines()[0].rstrip().endswith((".", "?"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_library_neither_prints_nor_parses_arguments(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "argparse.ArgumentParser", "exit"}, (
                f"{path}:{node.lineno}: {called} belongs to local/"
            )


def test_data_and_score_modules_do_not_load_torch():
    names = {layer_of(path) for path in FILES} - {*WITH_TORCH, "__init__"}
    program = (
        "import importlib, sys\n"
        f"for name in {sorted(names)}:\n"
        "    importlib.import_module(f'powsm.{name}')\n"
        "    for heavy in ('torch', 'espnet2', 'lightning', 'lhotse'):\n"
        "        if heavy in sys.modules:\n"
        "            sys.exit(f'powsm.{name} loads {heavy}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
