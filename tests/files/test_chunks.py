"""Runs of utterances: every one once, cut alike in all files, in order."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datadir_builder import FILES, make_data_dir

from powsm.files.chunks import map_in_order, plan_chunks, read_rows
from powsm.files.datadir import DataDirError, read_scp


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    lottery = random.Random(0)
    rows = {}
    for _ in range(60):
        rows[f"cv_{lottery.randrange(10**6)}_deu"] = {
            "text": lottery.choice(["", "a\u2028b", "x" * lottery.randrange(1, 300)]),
            "ipa": "pa" * lottery.randrange(1, 40),
        }
    return make_data_dir(tmp_path_factory.mktemp("data") / "train", rows)


@pytest.mark.parametrize("chunk_bytes", [1, 30, 1_000, 10**9])
def test_every_utterance_once_with_its_values(data, chunk_bytes):
    plan = plan_chunks(data, tuple(FILES), chunk_bytes)
    rows = [row for chunk in plan for row in read_rows(chunk)]
    columns = [dict(read_scp(data / name)) for name in FILES]
    assert [row[0] for row in rows] == list(columns[0])
    for row in rows:
        assert row[1:] == tuple(column[row[0]] for column in columns)
    assert [chunk.index for chunk in plan] == list(range(len(plan)))
    if chunk_bytes == 1:
        assert len(plan) == len(rows)


def test_memory_does_not_grow_with_the_files(tmp_path):
    # pages of a mapped file that were read count as memory used
    with open(tmp_path / "wav.scp", "w") as file:
        for i in range(400_000):
            file.write(f"utt{i:07d} {'x' * 200}\n")
    command = """
import resource, sys
from pathlib import Path
from powsm.files.chunks import plan_chunks
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
plan_chunks(Path(sys.argv[1]), ["wav.scp"], chunk_bytes=1 << 15)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", command, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 20 << 10  # KiB; the file has 85 MB


def test_cut_whose_key_is_missing_elsewhere_is_named(data, tmp_path):
    rows = list(read_scp(data / "text"))
    for name in ("wav.scp", "text"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    kept = [f"{utt_id} {value}\n" for utt_id, value in rows[:30] + rows[31:]]
    (tmp_path / "text").write_text("".join(kept), encoding="utf-8")
    with pytest.raises(DataDirError, match=f"text: no line for '{rows[30][0]}'"):
        plan_chunks(tmp_path, ("wav.scp", "text"), 1)


def test_swapped_keys_inside_a_chunk_are_named(data, tmp_path):
    (tmp_path / "wav.scp").write_text("a x\nb y\n")
    (tmp_path / "text").write_text("a x\nc y\n")
    [chunk] = plan_chunks(tmp_path, ("wav.scp", "text"))
    with pytest.raises(DataDirError, match="found 'c', expected 'b'"):
        list(read_rows(chunk))


def test_bytes_that_are_not_utf_8_are_located(tmp_path):
    (tmp_path / "wav.scp").write_bytes(b"a x\nb \xff\n")
    [chunk] = plan_chunks(tmp_path, ("wav.scp",))
    with pytest.raises(DataDirError, match="wav.scp: not UTF-8 text at byte 6"):
        list(read_rows(chunk))


@pytest.mark.parametrize("content", [None, b""])
def test_missing_or_empty_file_is_named(tmp_path, content):
    (tmp_path / "wav.scp").write_text("a x\n")
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(DataDirError, match="text: missing or empty; rerun stage 1"):
        plan_chunks(tmp_path, ("wav.scp", "text"))


def _double(number):
    return 2 * number


def _die(number):
    os._exit(1)


@pytest.mark.parametrize("nj", [1, 2])
def test_results_keep_the_order_of_the_items(nj):
    assert list(map_in_order(_double, range(20), nj)) == list(range(0, 40, 2))


def test_killed_worker_is_said_in_one_line():
    with pytest.raises(ChildProcessError, match="fewer .--nj"):
        list(map_in_order(_die, range(4), 2))


def test_interrupt_does_not_wait_for_the_workers(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from powsm.files.chunks import map_in_order\n"
        "def work(number):\n"
        "    Path(f'{number}').write_text(str(os.getpid()))\n"
        "    os.rename(f'{number}', f'began{number}')\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    list(map_in_order(work, range(4), 2))\n"
    )
    process = subprocess.Popen(
        [sys.executable, program],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not all((tmp_path / f"began{number}").exists() for number in (0, 1)):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGINT
    assert stderr.count("Traceback") == 1, stderr  # of the program, not its workers
    for number in (0, 1):
        status = Path(f"/proc/{(tmp_path / f'began{number}').read_text()}/status")
        assert not status.exists() or "zombie" in status.read_text()
