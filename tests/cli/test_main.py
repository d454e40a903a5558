"""The `powsm` command: what it loads, and how it says that something went wrong."""

import argparse
import ast
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from powsm_command import POWSM, run_verb

from powsm.cli.main import VERBS, main
from powsm.cli.options import add_shared, device, share
from powsm.cli.run import run_command
from powsm.cli.run import run_verb as run_verb_apart
from powsm.errors import PowsmError

ROOT = Path(__file__).parents[2]
MODULES = {
    verb: f"powsm.cli.{module}"
    for rows in VERBS.values()
    for verb, (module, _) in rows.items()
}
HEAVY = ("torch", "espnet2", "lightning", "lhotse", "matplotlib", "panphon")


def powsm(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    command = [*POWSM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def test_help_lists_every_verb_and_loads_no_numpy():
    program = (
        "import sys; from powsm.cli.main import main; main(['--help']);"
        f"sys.exit(' '.join({{*{HEAVY!r}, 'numpy'}} & {{*sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stderr.strip() == ""
    assert re.findall(r"^  (\S+) ", done.stdout, re.M) == list(MODULES)


@pytest.mark.parametrize("verb", MODULES)
def test_options_are_read_before_anything_heavy_is_loaded(verb):
    """Through to an option that does not exist, as a user meets it."""
    program = (
        "import sys\nfrom powsm.cli.main import main\n"
        "try:\n"
        f"    main([{verb!r}, '--no_such_option', '1'])\n"
        "finally:\n"
        f"    print(*{{*{HEAVY!r}}} & {{*sys.modules}})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"powsm {verb}: error: ")
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("verb", MODULES)
def test_help_of_a_verb_is_the_docstring_of_its_module(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: powsm {verb} ")
    assert importlib.import_module(MODULES[verb]).__doc__.splitlines()[0] in printed


@pytest.mark.parametrize("path", sorted(ROOT.glob("powsm/cli/**/*.py")), ids=str)
def test_what_is_imported_late_exists(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_unknown_verb_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as end:
        main(["trainn"])
    assert end.value.code == 2
    expected = "powsm: error: no verb 'trainn'; did you mean 'train'?\n"
    assert capsys.readouterr().err == expected


def run(work, *arguments: str) -> None:
    """A command with one option, as a verb and a script of `local` have it."""

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--n", type=int, default=3, help="how many")

    run_command("powsm try", "Try.", add_options, work, arguments)


def raising(error: BaseException):
    def work(options):
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PowsmError("a.txt:3: odd"), "powsm try: error: a.txt:3: odd"),
        (FileNotFoundError(2, "No such file", "a.txt"), "powsm try: error: [Errno 2]"),
        (BrokenPipeError(32, "Broken pipe"), "powsm try: error: [Errno 32]"),
    ],
)
def test_error_of_the_user_is_one_line_and_status_1(error, line):
    with pytest.raises(SystemExit) as end:
        run(raising(error))
    assert end.value.code.startswith(line) and "\n" not in end.value.code


@pytest.mark.parametrize(
    "error", [ValueError("operands"), KeyError("a"), RuntimeError("CUDA")]
)
def test_fault_of_the_program_keeps_its_traceback(error):
    with pytest.raises(type(error)) as caught:
        run(raising(error))
    assert caught.value is error


def test_interrupted_command_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        run(raising(KeyboardInterrupt()))
    assert end.value.code == 130
    assert capsys.readouterr().err == "powsm try: interrupted\n"


def test_status_of_a_command_is_that_of_the_process():
    run(lambda options: None)
    run(lambda options: 0)
    with pytest.raises(SystemExit) as end:
        run(lambda options: os.EX_TEMPFAIL)
    assert end.value.code == os.EX_TEMPFAIL


def test_command_knows_how_to_be_called_again():
    lines = []
    run(lambda options: lines.append((options.n, options.command)), "--n", "4")
    assert lines == [(4, "powsm try --n 4")]


def test_log_is_ours_in_full_and_of_others_the_warnings():
    program = (
        "import logging; from powsm.cli.run import set_up_log; set_up_log();"
        "logging.getLogger('powsm.x').info('ours'); logging.info('theirs');"
        "logging.warning('loud'); logging.getLogger('powsm').warning('odd')"
    )

    def logged(rank: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"RANK": rank},
            capture_output=True,
            text=True,
        )
        return [line.split(None, 2)[2] for line in done.stderr.splitlines()]

    assert logged("0") == ["ours", "loud", "odd"]
    assert logged("1") == ["rank 1: odd"]


def test_reader_that_leaves_ends_the_output_quietly(tmp_path):
    """As `powsm score ... | head -1` does, with more output than a pipe holds."""
    texts = "".join(f"utt{i:06d} pa\n" for i in range(3000))
    speakers = "".join(f"utt{i:06d} s{i}\n" for i in range(3000))
    (tmp_path / "text").write_text(texts)
    (tmp_path / "utt2spk").write_text(speakers)
    options = ["--hyp", "text", "--ref", "text", "--by", "utt2spk", "--metric", "PER"]
    process = subprocess.Popen(
        [*POWSM, "score", *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().split()[0] == "metric"
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(120) == 141
    assert "Broken pipe" not in said and "Traceback" not in said


def test_interrupt_from_the_keyboard(tmp_path):
    """While the command waits for a file that never comes to an end."""
    os.mkfifo(tmp_path / "hyp")
    process = subprocess.Popen(
        [*POWSM, "score", "--hyp", "hyp", "--ref", "hyp"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    with open(tmp_path / "hyp", "w"):  # returns once the command has opened it
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "powsm score: interrupted\n"


def test_verb_that_fails_in_its_own_process_is_named(capfd):
    with pytest.raises(PowsmError, match="powsm score failed, see above"):
        run_verb_apart("score", "--hyp", "no_such_file", "--ref", "no_such_file")
    assert capfd.readouterr().err.startswith("powsm score: error: ")


def test_file_that_is_no_text_is_an_error_of_the_user(tmp_path):
    (tmp_path / "hyp").write_bytes(b"u1 \xff\xfe\n")
    with pytest.raises(SystemExit, match="powsm score: error: .*hyp"):
        run_verb("score", "--hyp", tmp_path / "hyp", "--ref", tmp_path / "hyp")


@pytest.mark.parametrize(
    ("text", "expected"), [("0/1", (0, 1)), ("3/16", (3, 16)), ("15/16", (15, 16))]
)
def test_share_of_a_job_array(text, expected):
    assert share(text) == expected


@pytest.mark.parametrize("text", ["16/16", "1", "/", "-1/3", "1/x", "²/3", ""])
def test_share_that_cannot_be(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not like 0/16"):
        share(text)


@pytest.mark.parametrize("wanted", ["cuda", "cuda:9", "gpu", "cpu:0:1", "cuda:x", ""])
def test_device_that_is_not_there_is_refused(monkeypatch, wanted):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(PowsmError, match=f"--device {wanted}: "):
        device(wanted)
    assert device("cpu") == "cpu"


@pytest.mark.parametrize("theirs", [None, "max_split_size_mb:64"])
def test_memory_of_a_gpu_is_set_up_before_anything_asks_for_it(monkeypatch, theirs):
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    if theirs:
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", theirs)
    main(["--version"])
    expected = None if theirs else "expandable_segments:True"
    assert os.environ.pop("PYTORCH_ALLOC_CONF", None) == expected


def test_settings_may_be_given_by_several_options():
    """The first ones were dropped, and nothing said so."""
    parser = argparse.ArgumentParser()
    add_shared(parser, "--set")
    given = parser.parse_args(["--set", "a=1", "--set", "b=2", "c=3"])
    assert given.overrides == ["a=1", "b=2", "c=3"]
    assert parser.parse_args([]).overrides == []
