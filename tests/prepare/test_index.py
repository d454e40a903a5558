"""The index of a dump folder: built once, refused when files disagree."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from dump_builder import make_dump

from powsm.audio import AudioError
from powsm.files.whole import atomic_folder
from powsm.prepare.index import ExampleIndex, IndexMismatchError, build_index


@pytest.fixture
def folder(tmp_path):
    return make_dump(tmp_path / "train", [0.5, 1.0, 0.75, 1.5, 0.6], no_text=(2,))


def test_index_reads_what_stage_4_wrote(folder):
    index = ExampleIndex(folder)
    assert len(index) == 5
    assert [len(index.examples(utt)) for utt in range(5)] == [4, 4, 1, 4, 4]
    assert index.n_samples.tolist() == [8000, 16000, 12000, 24000, 9600]
    assert index.utt_id(1) == "tiny_u0001_ita"
    assert index.audio(1).endswith("tiny_u0001_ita.wav")
    lines = (folder / "text").read_text().splitlines()
    read = [f"{e['id']} {e['text']}" for u in range(5) for e in index.examples(u)]
    assert read == lines
    assert index.examples(2)[0]["text_prev"] == "<na>"


def test_index_is_built_once_and_again_when_a_file_changes(folder):
    stamp = build_index(folder) / "stamp.json"
    before = stamp.stat().st_mtime_ns
    build_index(folder)
    assert stamp.stat().st_mtime_ns == before
    text = (folder / "text").read_text()
    (folder / "text").write_text(text.replace("<eng>", "<fra>"))
    index = ExampleIndex(folder)
    assert stamp.stat().st_mtime_ns != before
    assert index.examples(0)[0]["text"].startswith("<fra>")


def test_index_can_be_sent_to_a_worker(folder):
    index = pickle.loads(pickle.dumps(ExampleIndex(folder)))
    assert index.utt_id(4) == "tiny_u0004_eng"


def test_a_set_made_anew_while_it_is_read_is_never_mixed_with_the_old(folder):
    whole, partly = ExampleIndex(folder), ExampleIndex(folder)
    before = whole.examples(1)  # its files are open now
    audio = whole.audio(1)
    partly.audio(1)  # the lists alone
    packed = pickle.dumps(whole)
    with atomic_folder(folder) as making:
        make_dump(making, [1.5, 0.5, 0.7, 0.9, 1.1])
    assert (whole.examples(1), whole.audio(1)) == (before, audio)
    for read in (lambda: partly.examples(1), lambda: pickle.loads(packed)):
        with pytest.raises(IndexMismatchError, match="train: was made anew while"):
            read()


def test_files_that_disagree_are_refused_with_the_line(folder):
    lines = (folder / "text.prev").read_text().splitlines()
    lines[2] = "somebody_else_pr <na>"
    (folder / "text.prev").write_text("\n".join(lines) + "\n")
    with pytest.raises(IndexMismatchError, match=r"text.prev:3: found 'somebody_else"):
        build_index(folder)
    assert not list(folder.glob(".index*"))  # nothing half-built stays behind


def test_missing_lines_and_missing_files_are_named(folder):
    lines = (folder / "text.ctc").read_text().splitlines()
    (folder / "text.ctc").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(IndexMismatchError, match="17 lines, text.ctc has 16"):
        build_index(folder)
    (folder / "text.ctc").unlink()
    with pytest.raises(FileNotFoundError, match="text.ctc: not found; run stage 4"):
        build_index(folder)


def test_a_length_that_is_no_number_is_named(folder):
    path = folder / "utt2num_samples"
    path.write_text(path.read_text().replace(" 24000", " many"))
    with pytest.raises(IndexMismatchError, match="utt2num_samples:10: expected"):
        build_index(folder)


@pytest.mark.parametrize("chunk", [1, 2, 5, 7])
def test_utterances_are_whole_whatever_is_indexed_at_a_time(folder, monkeypatch, chunk):
    monkeypatch.setattr("powsm.prepare.index._CHUNK", chunk)
    index = ExampleIndex(folder)
    assert [len(index.examples(utt)) for utt in range(5)] == [4, 4, 1, 4, 4]
    assert index.utt_id(4) == "tiny_u0004_eng"
    assert index.n_samples.tolist() == [8000, 16000, 12000, 24000, 9600]


def test_a_file_with_more_lines_at_its_end_is_refused(folder):
    with open(folder / "text", "a") as file:
        file.write("tiny_u0005_eng_pr <eng><pr><notimestamps> /p/\n")
    with pytest.raises(IndexMismatchError, match="17 lines, text has 18"):
        build_index(folder)


def test_processes_that_build_at_once_wait_for_the_first(tmp_path):
    """As the ranks of a training do: 20 tries of four, and 20 times all read it."""
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from powsm.prepare.index import ExampleIndex\n"
        "sys.stdin.readline()\n"
        "for number in range(20):\n"
        "    folder = Path(sys.argv[1]) / f'train{number}'\n"
        "    assert len(ExampleIndex(folder)) == 2\n"
    )
    for number in range(20):
        make_dump(tmp_path / f"train{number}", [0.5, 1.0])
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    results = [
        (process.communicate(b"\n"), process.returncode) for process in processes
    ]
    assert [code for _, code in results] == [0] * 4, results
    for number in range(20):
        left = (tmp_path / f"train{number}").glob(".*")
        assert [path.name for path in left] == [".index"]


def test_index_can_be_read_by_everybody(folder):
    """One that a colleague made was closed to all others."""
    assert os.stat(build_index(folder)).st_mode & 0o055 == 0o055 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_audio_shorter_than_its_number_of_samples_is_named(folder):
    index = ExampleIndex(folder)
    path = Path(index.audio(1))
    for n_samples in (16_000 - 160, 20_000):  # less than a hop short, or longer
        soundfile.write(path, np.full(n_samples, 0.1), 16_000)
        assert len(index.speech(1)) == n_samples
    soundfile.write(path, np.full(15_000, 0.1), 16_000)
    with pytest.raises(AudioError, match="has 15000 samples, .* says 16000") as err:
        index.speech(1)
    assert f"{folder}: tiny_u0001_ita: {path}" in str(err.value)
