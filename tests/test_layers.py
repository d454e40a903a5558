"""How the packages hang together: the stair, the doors to other libraries, sizes."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import powsm

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "powsm"
FILES = sorted(PACKAGE.rglob("*.py"))

# The stair in the package's docstring, lowest row first; two spaces end the rooms.
ROWS = [
    row.split() for row in re.findall(r"^ {4}(\w.*?) {2,}\w.*$", powsm.__doc__, re.M)
][::-1]
FLOOR = {room: number for number, row in enumerate(ROWS) for room in row}
# The lowest row and the languages, audio and Hub above it are small modules that may
# lean on each other, if not in a circle.
BASEMENT = {*ROWS[0], *ROWS[1]}

# Where an outside library may be imported, by package or single module.
DOORS = {
    "torch": {"model", "decode", "train", "publish", "cluster.ranks", "cli"},
    "torchaudio": {"model", "decode", "train"},
    "espnet": {"model", "decode", "train"},
    # stock_check is a process of its own, with nothing but stock ESPnet
    "espnet2": {"model", "decode", "train", "publish.stock_check"},
    "lightning": {"train"},
    "loralib": {"train.parts.adapters"},
    "lhotse": {"corpora", "train.augment.apply"},
    "submitit": {"cluster"},
    "panphon": {"phones"},
    "huggingface_hub": {"hub"},
    "soundfile": {"audio_files", "publish.stock_check"},
    "av": {"audio_files"},
    "gradio": {"report.demo.server"},
}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    """powsm/corpora/shar.py -> corpora.shar; a package's __init__ -> the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room_of(module: str) -> str:
    """The package or single module of the stair: corpora.shar -> corpora."""
    return module.split(".")[0]


@cache
def imports_of(path: Path) -> list[tuple[int, str]]:
    """Every module that a file imports anywhere in its text, with the line."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = node.module.split(".")[0] == "powsm" and (
                    _file_of(name) is not None
                )
                found.append((node.lineno, name if is_module else node.module))
    return found


@cache
def _file_of(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def own_imports(path: Path) -> list[tuple[int, str]]:
    """The modules of powsm that a file imports: (line, corpora.shar)."""
    return [
        (line, name.removeprefix("powsm."))
        for line, name in imports_of(path)
        if name.startswith("powsm.")
    ]


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_stair_names_every_room_once():
    rooms = {room_of(module_of(path)) for path in FILES} - {""}
    assert sorted(FLOOR) == sorted(rooms)
    assert len(FLOOR) == sum(map(len, ROWS))


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_module_imports_only_from_rows_below(path):
    room = room_of(module_of(path))
    for line, name in own_imports(path):
        other = room_of(name)
        assert (
            other == room or FLOOR[other] < FLOOR[room] or {room, other} <= BASEMENT
        ), f"{ids(path)}:{line}: {room} imports {other}, which is not below it"


def test_no_circle_of_imports():
    graph = {module_of(path): {name for _, name in own_imports(path)} for path in FILES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"circle: {' -> '.join((*way, module))}"
        if module not in done:
            for name in graph.get(module, ()):
                visit(name, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_arrows_of_a_file_are_seen(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        "import powsm.score.rates\ndef f():\n    from powsm import train\n"
        "    from powsm.corpora.shar import Shard\nimport powsmith.audio\n"
    )
    assert {name for _, name in own_imports(module)} == {
        "score.rates",
        "train",
        "corpora.shar",
    }


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_outside_library_is_imported_at_its_door(path):
    module = module_of(path)
    for line, name in imports_of(path):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or module in doors or room_of(module) in doors, (
            f"{ids(path)}:{line}: {name} is imported in {' '.join(sorted(doors))} only"
        )


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_library_does_not_reach_down_into_scripts(path):
    """A wheel has neither folder: what the library starts is a module of its own."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.search(r"(^|[\s\"'/`])(local|scripts)/\w", node.value), (
                f"{ids(path)}:{node.lineno}: names a script: {node.value[:80]!r}"
            )


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_init_of_a_package_is_its_map(path):
    """A line for each module, and no import."""
    if path.name != "__init__.py" or path.parent == PACKAGE:
        return
    tree = tree_of(path)
    assert len(tree.body) == 1, f"{ids(path)} holds more than its docstring"
    rows = re.findall(
        r"^(?: {4})?(\w+)(?: {2,}|$)", ast.get_docstring(tree, clean=False), re.M
    )
    here = {p.stem for p in path.parent.glob("*.py")} | {
        p.parent.name for p in path.parent.glob("*/__init__.py")
    }
    assert sorted(rows) == sorted(here - {"__init__"})


def test_sizes():
    """At most 13 packages, 8 single modules, 14 modules each, 60 lines a function."""
    packages = [p for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()]
    singles = [p for p in PACKAGE.glob("*.py") if p.name != "__init__.py"]
    assert len(packages) <= 13
    assert len(singles) <= 8
    for init in PACKAGE.rglob("*/__init__.py"):
        modules = [p for p in init.parent.glob("*.py") if p.name != "__init__.py"]
        assert len(modules) <= 14, f"{ids(init.parent)} has {len(modules)} modules"
    long = [
        f"{ids(path)}:{node.lineno} {node.name}: {n_code_lines(path, node)}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and n_code_lines(path, node) > 60
    ]
    assert not long, "functions over 60 lines of code:\n" + "\n".join(long)


def n_code_lines(path: Path, function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring, blank lines and comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        skipped = range(first.lineno, first.end_lineno + 1)
    else:
        skipped = range(0)
    return sum(
        number not in skipped
        and bool(lines[number - 1].strip())
        and not lines[number - 1].strip().startswith("#")
        for number in range(function.lineno, function.end_lineno + 1)
    )


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted(ROOT.glob("local/*.py")), *sorted(ROOT.glob("tests/**/*.py"))],
    ids=ids,
)
def test_module_says_what_it_is_for(path):
    docstring = ast.get_docstring(tree_of(path))
    assert docstring, f"{path} has no docstring"
    assert docstring.splitlines()[0].rstrip().endswith((".", "?"))


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_library_neither_prints_nor_parses_arguments(path):
    if room_of(module_of(path)) == "cli":
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "argparse.ArgumentParser", "exit"}, (
                f"{path}:{node.lineno}: {called} belongs to powsm/cli"
            )


def test_data_and_score_modules_do_not_load_torch():
    """Preparing data and scoring do without torch, whose import takes seconds."""
    with_torch = {"model", "decode", "train", "publish", "cluster", "cli", "report"}
    light = {"decode.profile", "model.find"}
    names = {
        module
        for path in FILES
        if (module := module_of(path))
        and (room_of(module) not in with_torch or module in light)
    }
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


def test_import_of_the_package_is_light():
    done = subprocess.run(
        [sys.executable, "-c", "import powsm, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"torch", "numpy", "espnet2"} & set(done.stdout.split())
