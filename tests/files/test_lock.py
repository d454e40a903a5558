"""The lock of what is written: real processes, ends of all kinds."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from powsm.files.lock import OwnedError, lock_file, owned

HOLD = """
import sys, time
from pathlib import Path
from powsm.files.lock import owned
with owned(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.readline()
"""

COUNT = """
import sys, time
from pathlib import Path
from powsm.files.lock import owned
number = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with owned(number, wait=True):
        value = int(number.read_text())
        time.sleep(0.001)
        number.write_text(str(value + 1))
"""


def hold(path: Path, kind: str = "alone") -> subprocess.Popen:
    """A process that holds the lock until a line comes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_second_process_is_refused_by_name(tmp_path):
    process = hold(tmp_path / "set")
    with pytest.raises(OwnedError) as err, owned(tmp_path / "set"):
        pass
    message = str(err.value)
    assert message.startswith(f"{tmp_path / 'set'} is being written by pid ")
    assert f"pid {process.pid} on {os.uname().nodename} since 20" in message
    assert "-c" in message and message.endswith("wait for its end or stop it")
    assert "\n" not in message[:60]
    process.communicate("\n")
    with owned(tmp_path / "set"):
        pass
    assert list(tmp_path.iterdir()) == []  # nothing is left


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_lock_ends_with_its_process(tmp_path, end):
    process = hold(tmp_path / "set")
    process.send_signal(end)
    process.wait()
    with owned(tmp_path / "set"):
        assert lock_file(tmp_path / "set").exists()
    assert list(tmp_path.iterdir()) == []


def test_child_of_a_killed_process_does_not_keep_the_lock(tmp_path):
    """Workers can outlive the process that is killed."""
    program = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from powsm.files.lock import owned\n"
        "with owned(Path(sys.argv[1])):\n"
        "    if (child := os.fork()) == 0:\n"
        "        time.sleep(60)\n"
        "        os._exit(0)\n"
        "    print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "set")],
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        os.kill(child, 0)  # it lives
        with owned(tmp_path / "set"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_child_of_the_holder_is_refused(tmp_path):
    def ask(results):
        try:
            with owned(tmp_path / "set"):
                results.put("let in")
        except OwnedError:
            results.put("refused")

    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    with owned(tmp_path / "set"):
        child = fork.Process(target=ask, args=(results,))
        child.start()
        assert results.get(timeout=20) == "refused"
        child.join()
        # the child opened and closed the file: the lock must still be there
        assert subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path / "set"), "alone"],
            capture_output=True,
            text=True,
            input="\n",
        ).stderr.count("OwnedError")


def test_block_inside_a_block_of_the_same_path(tmp_path):
    with owned(tmp_path / "set"):
        with owned(tmp_path / "set"):
            pass
        assert lock_file(tmp_path / "set").exists()  # the outer one holds it still
    assert not lock_file(tmp_path / "set").exists()


def test_other_thread_is_refused(tmp_path):
    said = []

    def ask():
        try:
            with owned(tmp_path / "set"):
                pass
        except OwnedError as err:
            said.append(str(err))

    with owned(tmp_path / "set"):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert lock_file(tmp_path / "set").exists()
    assert len(said) == 1 and "another thread" in said[0]


def test_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), owned(tmp_path / "set"):
        raise RuntimeError
    with owned(tmp_path / "set"):
        pass


def test_shared_locks_keep_out_who_wants_it_alone(tmp_path):
    one, two = hold(tmp_path / "set", "shared"), hold(tmp_path / "set", "shared")
    with pytest.raises(OwnedError), owned(tmp_path / "set"):
        pass
    one.communicate("\n")
    with pytest.raises(OwnedError), owned(tmp_path / "set"):
        pass
    with owned(tmp_path / "set", shared=True):
        pass
    with pytest.raises(OwnedError), owned(tmp_path / "set"):
        pass
    two.communicate("\n")
    with owned(tmp_path / "set"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_alone_keeps_out_shared(tmp_path):
    process = hold(tmp_path / "set")
    with pytest.raises(OwnedError), owned(tmp_path / "set", shared=True):
        pass
    process.communicate("\n")


def test_waiting_processes_never_hold_it_together(tmp_path):
    number = tmp_path / "number"
    number.write_text("0")
    command = [sys.executable, "-c", COUNT, str(number), "10"]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert number.read_text() == "40"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_waiting_says_for_whom_and_ends(tmp_path, caplog):
    process = hold(tmp_path / "set")
    timer = threading.Timer(0.5, lambda: process.communicate("\n"))
    timer.start()
    start = time.monotonic()
    with caplog.at_level("INFO"), owned(tmp_path / "set", wait=True):
        assert time.monotonic() - start > 0.3
    assert f"pid {process.pid}" in caplog.text
    timer.join()


@pytest.mark.parametrize("name", ["x" * 255, "ʃ" * 120, "☃" * 85, ".parts", "a b'c"])
def test_lock_of_an_odd_name(tmp_path, name):
    with owned(tmp_path / name):
        assert lock_file(tmp_path / name).exists()


def test_long_names_that_differ_at_their_end_are_two_locks(tmp_path):
    with owned(tmp_path / ("x" * 240 + "1")), owned(tmp_path / ("x" * 240 + "2")):
        assert len(list(tmp_path.iterdir())) == 2


def test_two_spellings_of_a_path_are_one_lock(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with owned(Path("data")):
        process = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path / "data/../data"), "alone"],
            capture_output=True,
            text=True,
            input="\n",
        )
    assert "OwnedError" in process.stderr


def test_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def refuse(fd, kind):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with owned(tmp_path / "set"):
        pass
    assert "has no locks" in caplog.text


def test_damaged_record_does_not_hide_the_holder(tmp_path):
    process = hold(tmp_path / "set")
    lock_file(tmp_path / "set").write_text("{")
    with pytest.raises(OwnedError, match="no record"), owned(tmp_path / "set"):
        pass
    process.communicate("\n")
