"""What the READMEs and docs/ tell people to type exists and is understood."""

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from powsm.cluster.costs import COST_KEYS, read_costs

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("egs2/*/s2t1/README.md"))]
DOCS = sorted(ROOT.glob("docs/*.md"))
PAGES = [*READMES, *DOCS]
NOT_OURS = {"ffmpeg"}  # what a page uses of other people's programs
MINI = ROOT / "egs2/mini_ipapack/s2t1"  # pages of docs/ are read in a recipe's folder
BIN = Path(sys.executable).parent


def start_of(page: Path) -> Path:
    """The folder in which the commands of a page are typed."""
    return MINI if page in DOCS else page.parent


def commands(readme: Path) -> list[tuple[Path, list[str]]]:
    """(working directory, words) of every command in the bash blocks of a page."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", readme.read_text(), re.S):
        folder = start_of(readme)
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            if words[0] == "cd":
                folder = folder / words[1]
                assert folder.is_dir(), f"{readme}: {line}"
            else:
                for piped in " ".join(map(shlex.quote, words)).split(" '|' "):
                    found.append((folder, shlex.split(piped)))
    return found


def inline_commands(readme: Path) -> list[tuple[Path, list[str]]]:
    """Commands in the running text: `... ./run.sh ...` and `make ...`."""
    spans = re.findall(r"`([^`\n]+)`", readme.read_text())
    return [
        (start_of(readme), shlex.split(span))
        for span in spans
        if re.match(r"(\w+=\S+ )*(\./run\.sh|make) ", span)
    ]


ALL = [
    pytest.param(folder, words, id=f"{readme.relative_to(ROOT)}: {' '.join(words)}")
    for readme in PAGES
    for folder, words in commands(readme) + inline_commands(readme)
]


@pytest.mark.parametrize(("folder", "words"), ALL)
def test_command_is_understood(folder, words):
    env = {}
    while "=" in words[0]:
        name, _, value = words[0].partition("=")
        env[name] = value
        words = words[1:]
    program, *arguments = words
    if program in NOT_OURS:
        return
    if program == ".":
        assert (folder / arguments[0]).is_file()
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(arguments) <= set(targets)
    elif program == "./run.sh":
        # --check fails here
        asked = (word for word in arguments if word not in ("--check", "--dry_run"))
        fault = fault_of_plan(folder, *asked, **env)
        assert fault is None, fault
    elif Path(program).name == "powsm":
        command, *rest = arguments
        check_options([BIN / "powsm", command], rest)
    elif program.startswith("local/"):
        check_options([sys.executable, folder / program], arguments)
    elif program.startswith(".venv/bin/"):
        assert (BIN / Path(program).name).exists()
    else:
        assert os.access(folder / program, os.X_OK), f"{folder / program}"


@cache
def fault_of_plan(folder: Path, *arguments: str, **env: str) -> str | None:
    """What run.sh says against a plan with these options; None if it prints one."""
    done = subprocess.run(
        ["bash", "./run.sh", *arguments, "--dry_run"],
        cwd=folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return None if done.returncode == 0 else done.stderr


@cache
def help_of(*program: str | Path) -> str:
    done = subprocess.run(
        [*program, "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_options(program: list, words: list[str]) -> None:
    """Every option among the words is one that `--help` names."""
    known = set(re.findall(r"--[\w-]+", help_of(*program)))
    asked = {word.split("=")[0] for word in words if word.startswith("--")}
    assert asked <= known | {"--help"}


PYTHON_BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    )
]


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_python_names_what_there_is(block):
    """It compiles, and what it takes from powsm exists; a model is needed to run it."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("powsm"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "powsm":
            assert hasattr(importlib.import_module("powsm"), node.attr), node.attr


def test_make_mini_and_make_test_stand_first():
    first_block = re.search(r"```bash\n(.*?)```", READMES[0].read_text(), re.S)
    programs = [line.split("#")[0].split() for line in first_block[1].splitlines()]
    assert programs == [["make", "mini"], ["make", "test"]]


def test_stage_table_lists_the_stages_of_the_driver():
    driver = re.findall(
        r"^if in_stage (\d+)", (ROOT / "scripts/s2t.sh").read_text(), re.M
    )
    page = ROOT / "docs/train.md"
    table = re.findall(r"^\| (\d+) \|", page.read_text(), re.M)
    assert table == driver


@pytest.mark.parametrize("readme", READMES[1:], ids=lambda p: str(p.relative_to(ROOT)))
def test_cost_table_is_that_of_costs_yaml(readme):
    table = re.findall(r"^\| (\d+) \| (.*?) \|$", readme.read_text(), re.M)
    costs = read_costs(readme.with_name("costs.yaml"))
    rows = [(int(stage), cells.split(" | ")) for stage, cells in table]
    assert [row for row in rows if len(row[1]) == len(COST_KEYS)] == [
        (stage, [row[key] for key in COST_KEYS]) for stage, row in costs.items()
    ]


@pytest.mark.parametrize("readme", READMES[1:], ids=lambda p: str(p.relative_to(ROOT)))
def test_dry_run_prints_the_cost_table(readme):
    driver = (ROOT / "scripts/s2t.sh").read_text()
    costs = read_costs(readme.with_name("costs.yaml"))
    rows = {n: row for n, row in costs.items() if f"in_stage {n} " in driver}
    assert rows
    done = subprocess.run(
        ["bash", "run.sh", "--dry_run", "--stop_stage", "15"],
        cwd=readme.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    for stage, row in rows.items():
        cost = (
            f"    cost: {row['time']}; {row['disk']} of disk, {row['memory']} of "
            f"memory, {row['GPU-hours']} GPU-hours ("
        )
        basis = f"{row['basis']})\n"
        if stage == 12 and row["GPU-hours"] == "some":  # which sets would tell
            basis = "14 of 14 sets missing in "
        cost = re.escape(cost + basis)
        assert re.search(rf"^stage {stage}: .*\n{cost}", done.stdout, re.M)


@pytest.mark.parametrize("readme", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(readme):
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
        if not target.startswith("http"):
            assert (readme.parent / target).exists(), target


@pytest.mark.parametrize("recipe", ["mini_ipapack", "powsm", "powsm_ctc"])
def test_plan_is_printed_on_a_bare_machine(recipe, tmp_path):
    """A copy without environment, where every Python on the path refuses to start."""
    for folder in ("conf", "egs2", "local", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("powsm", "python", "python3", "torchrun"):
        (programs / name).write_text(
            f"#!/bin/sh\necho {name} >>{tmp_path}/calls\nexit 1"
        )
        (programs / name).chmod(0o755)

    def run(option: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "run.sh", option],
            cwd=tmp_path / f"egs2/{recipe}/s2t1",
            env={"PATH": f"{programs}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    plan = run("--dry_run")
    assert (plan.returncode, plan.stderr) == (0, "")
    assert not (tmp_path / "calls").exists()
    driver = (ROOT / "scripts/s2t.sh").read_text()
    last = int(re.search(r"^stop_stage=(\d+)", driver, re.M)[1])
    stages = [int(n) for n in re.findall(r"^if in_stage (\d+)", driver, re.M)]
    blocks = re.split(r"^stage (\d+): ", plan.stdout, flags=re.M)[1:]
    assert [int(n) for n in blocks[::2]] == [n for n in stages if n <= last]
    for number, block in zip(blocks[::2], blocks[1::2], strict=True):
        if number != "3":  # which does nothing in place
            for word in ("cost: ", "from: ", "to: ", "run: "):
                assert word in block, f"stage {number}: {block}"

    check = run("--check")
    assert check.returncode == 1
    assert check.stdout.startswith(plan.stdout)
    assert "run scripts/setup_env.sh" in check.stderr


def test_every_path_of_the_paper_can_be_set_in_the_environment(tmp_path):
    db = ROOT / "egs2/powsm/s2t1/db.sh"
    names = re.findall(r"^(?:export )?(\w+)=\$\{(\w+):-", db.read_text(), re.M)
    assert all(name == default for name, default in names)
    paths = {name: f"/elsewhere/{name}" for name, _ in names}
    assert len(paths) > 5
    program = "set -eu; . ./db.sh; " + "".join(f'echo "${name}"; ' for name in paths)
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=db.parent,
        env=paths,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == list(paths.values()), done.stderr
    plan = subprocess.run(
        ["bash", "run.sh", "--dry_run"],
        cwd=db.parent,
        env=os.environ | paths,
        capture_output=True,
        text=True,
    ).stdout
    for option, name in (
        ("downloads", "IPAPACK_PLUS"),
        ("data", "POWSM_DATA"),
        ("dump", "POWSM_DUMP"),
        ("exp", "POWSM_EXP"),
    ):
        assert f"--{option} /elsewhere/{name}" in plan
    assert "/elsewhere/POWSM_ROOT" not in plan


def test_readme_is_one_screen_and_leads_to_every_page():
    text = READMES[0].read_text()
    assert len(text.splitlines()) <= 90
    for page in DOCS:
        assert f"(docs/{page.name})" in text, f"{page.name} is not linked"


def test_public_ci_calls_the_one_of_the_repository():
    import yaml

    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
