"""Stage 1 as a user runs it: same bytes however it is run, and faults that stop it."""

import contextlib
import errno
import gzip
import io
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from shar_builder import (
    encode,
    make_cut,
    members_of,
    write_cuts,
    write_shard,
    write_tar,
)

from powsm.audio import read_audio
from powsm.corpora.shar import ShardError, find_shards
from powsm.files import sort as bigsort
from powsm.files.datadir import read_scp, validate
from powsm.prepare import merge as merge_module
from powsm.prepare import shards as parts_module
from powsm.prepare.merge import merge_parts
from powsm.prepare.shards import load_parts, make_parts

SCRIPT = Path(__file__).parents[2] / "local" / "prepare_data.py"


@dataclass
class Result:
    returncode: int
    stderr: str


def prepare(downloads: Path, data: Path, *options: str) -> Result:
    """Run the script; in this process unless it is to start others, to save seconds."""
    arguments = ["--downloads", str(downloads), "--data", str(data), *options]
    if "--nj" in options:
        command = [sys.executable, str(SCRIPT), *arguments]
        process = subprocess.run(command, capture_output=True, text=True)
        return Result(process.returncode, process.stderr)
    stderr = io.StringIO()
    handler = logging.StreamHandler(stderr)
    logger = logging.getLogger("powsm")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    status = 0
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stderr(stderr),
        ):
            patch.setattr(sys, "argv", [str(SCRIPT), *arguments])
            runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as err:  # a message stands for status 1
        status = err.code if isinstance(err.code, int) else 1
        stderr.write("" if isinstance(err.code, int) else str(err.code))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return Result(status, stderr.getvalue())


def contents(data: Path) -> dict[str, bytes]:
    """Everything under the sets, by name."""
    return {
        str(path.relative_to(data)): path.read_bytes()
        for folder in data.iterdir()
        if folder.name != ".parts"
        for path in folder.rglob("*")
        if path.is_file()
    }


def leftovers(data: Path) -> list[Path]:
    return [path for path in data.rglob("*") if path.name.startswith(".")][1:]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Seven shards of three corpora; ids in no order, speakers across shards."""
    downloads = tmp_path_factory.mktemp("corpus") / "downloads"
    for corpus, split, numbers in (
        ("cv", "train", range(3)),
        ("cv", "dev", range(1)),
        ("cv", "test", range(1)),
        ("fleurs", "en_us-train", range(2)),
        ("doreco", "all", range(1)),
    ):
        for number in numbers:
            cuts = [
                make_cut(
                    f"{i * 37 % 11:02d}-{number}",
                    n_samples=800 + i,
                    speaker=f"s{i % 3}",
                    text=["null", "", "two  words"][i % 3],
                    ipa="" if i == 5 else "n ʊ l",
                    phones="",
                )
                for i in range(8)
            ]
            folder = downloads / f"{corpus}_shar" / split
            write_shard(folder, cuts, f"{number:06d}")
    return downloads


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory):
    """What one process makes of the corpus in one go."""
    data = tmp_path_factory.mktemp("expected") / "data"
    result = prepare(corpus, data)
    assert result.returncode == 0, result.stderr
    assert "train: kept 35 of 40 (no_ipa=5)" in result.stderr  # 5 shards of 8
    return contents(data)


def test_sets_are_valid_and_complete(corpus, tmp_path):
    make = make_parts(find_shards(corpus), tmp_path)
    merge_parts(make, tmp_path)
    counts = {d: validate(tmp_path / d).n_utts for d in ("train", "dev")}
    assert counts == {"train": 35, "dev": 7}
    assert validate(tmp_path / "test_cv").n_utts == 7
    assert validate(tmp_path / "test_doreco").n_utts == 7  # though its split is `all`
    assert validate(tmp_path / "train").n_speakers == 6  # three in each corpus
    for _, location in read_scp(tmp_path / "train" / "wav.scp"):
        assert 800 <= len(read_audio(location)) < 808


def test_text_stays_as_it_is(expected):
    lines = expected["dev/text"].decode().splitlines()
    assert {line.partition(" ")[2] for line in lines} == {"null", "", "two words"}


def test_summary_counts_drops_by_corpus(expected):
    summary = json.loads(expected["train/prepare.json"])
    assert (summary["kept"], summary["of"]) == (35, 40)
    assert summary["dropped"] == {"no_ipa": 5}
    assert summary["corpora"]["cv"]["kept"] == 21
    assert summary["corpora"]["fleurs"]["dropped"] == {"no_ipa": 2}
    assert summary["bad_shards"] == []
    assert summary["unpacked_bytes"] == 0


def test_same_bytes_for_any_number_of_processes(corpus, expected, tmp_path):
    assert prepare(corpus, tmp_path, "--nj", "2").returncode == 0
    assert contents(tmp_path) == expected


def test_same_bytes_for_shares_in_any_order(corpus, expected, tmp_path):
    for share in ("2/3", "0/3"):
        assert prepare(corpus, tmp_path, "--shards", share).returncode == 0
    result = prepare(corpus, tmp_path, "--merge")
    assert result.returncode == 1
    assert "has no part" in result.stderr and "run stage 1" in result.stderr
    assert contents(tmp_path) == {}
    assert prepare(corpus, tmp_path, "--shards", "1/3").returncode == 0
    assert prepare(corpus, tmp_path, "--merge").returncode == 0
    assert contents(tmp_path) == expected


def test_same_bytes_for_any_file_order(corpus, expected, tmp_path, monkeypatch):
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda p: reversed(sorted(listing(p))))
    made = make_parts(find_shards(corpus)[::-1], tmp_path)
    merge_parts(made, tmp_path)
    monkeypatch.undo()
    assert contents(tmp_path) == expected


def test_same_bytes_with_few_open_files(corpus, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(bigsort, "MAX_OPEN", 2)
    merge_parts(make_parts(find_shards(corpus), tmp_path), tmp_path)
    assert contents(tmp_path) == expected


def test_rerun_changes_nothing(corpus, expected, tmp_path):
    prepare(corpus, tmp_path)
    dates = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert prepare(corpus, tmp_path).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in dates} == dates
    assert contents(tmp_path) == expected


@pytest.mark.parametrize("file", ["train/text", "dev/prepare.json"])
def test_rerun_restores_a_lost_file(corpus, expected, tmp_path, file):
    merge_parts(make_parts(find_shards(corpus), tmp_path), tmp_path)
    (tmp_path / file).unlink()
    merge_parts(make_parts(find_shards(corpus), tmp_path), tmp_path)
    assert contents(tmp_path) == expected


def test_changed_shard_is_made_anew(tmp_path):
    downloads, data = tmp_path / "downloads", tmp_path / "data"
    split = downloads / "cv_shar" / "train"
    write_shard(split, [make_cut("a")], "000000")
    write_shard(split, [make_cut("b")], "000001")
    merge_parts(make_parts(find_shards(downloads), data), data)
    kept = data / ".parts" / "cv_shar" / "train" / "000000.tsv"
    date = kept.stat().st_mtime_ns
    write_shard(split, [make_cut("b"), make_cut("c")], "000001")
    merge_parts(make_parts(find_shards(downloads), data), data)
    utt_ids = [utt_id for utt_id, _ in read_scp(data / "train" / "text")]
    assert utt_ids == ["cv_a_eng", "cv_b_eng", "cv_c_eng"]
    assert kept.stat().st_mtime_ns == date


@pytest.mark.parametrize("n_files", [1, 6])
def test_same_bytes_after_a_kill(corpus, expected, tmp_path, n_files):
    """kill -9 once some files are there, at work on parts or on sets; then again."""
    command = [sys.executable, SCRIPT, "--downloads", corpus, "--data", tmp_path]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if len(list(tmp_path.rglob("*.tsv"))) >= n_files or list(
            tmp_path.glob("*/text")
        ):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    process.wait()
    assert prepare(corpus, tmp_path).returncode == 0
    assert contents(tmp_path) == expected
    assert leftovers(tmp_path) == []


def test_workers_end_when_their_parent_is_killed(tmp_path):
    """They would wait for work for ever, and hold a job's memory and its pipes."""
    split = tmp_path / "cv_shar" / "train"
    for number in range(40):
        cuts = [make_cut(f"{number}-{i}") for i in range(100)]
        write_shard(split, cuts, f"{number:06d}")
    data = tmp_path / "data"
    command = [sys.executable, SCRIPT, "--downloads", tmp_path, "--data", data]
    process = subprocess.Popen([*command, "--nj", "2"], stderr=subprocess.PIPE)
    while process.poll() is None and not list(data.rglob("*.tsv")):
        time.sleep(0.01)
    process.kill()
    # the workers hold the other end of this pipe: it ends when they have
    process.communicate(timeout=60)


@pytest.mark.parametrize("at", ["parts", "merging", "moving"])
def test_same_bytes_after_a_crash(corpus, expected, tmp_path, monkeypatch, at):
    """A process that dies at a chosen place leaves nothing that a rerun would trust."""

    class Died(BaseException):
        pass

    calls = 0

    def dies_at_third(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Died
        return original(*args, **kwargs)

    module, name = {
        "parts": (parts_module, "read_shard"),
        "merging": (merge_module, "write_kaldi_speakers"),
        "moving": (os, "replace"),
    }[at]
    if at == "moving":
        make_parts(find_shards(corpus), tmp_path)
    original = getattr(module, name)
    monkeypatch.setattr(module, name, dies_at_third)
    with pytest.raises(Died):
        merge_parts(make_parts(find_shards(corpus), tmp_path), tmp_path)
    monkeypatch.undo()
    merge_parts(make_parts(find_shards(corpus), tmp_path), tmp_path)
    assert contents(tmp_path) == expected
    assert leftovers(tmp_path) == []


# --- shards that cannot be used


@pytest.fixture
def bad_corpus(tmp_path):
    """Three shards; the tar file of the second is cut off."""
    downloads = tmp_path / "downloads"
    split = downloads / "cv_shar" / "train"
    for number in range(3):
        write_shard(split, [make_cut(f"c{number}")], f"{number:06d}")
    path = split / "recording.000001.tar"
    path.write_bytes(path.read_bytes()[:700])
    return downloads


@pytest.mark.parametrize("options", [(), ("--nj", "2")])
def test_bad_shard_stops_and_finished_ones_stay(bad_corpus, tmp_path, options):
    data = tmp_path / "data"
    result = prepare(bad_corpus, data, *options)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert "shard cv_shar/train/000001" in line
    assert "recording.000001.tar: cut off inside member 'c1.flac'" in line
    assert "Traceback" not in result.stderr
    assert contents(data) == {}
    part = data / ".parts" / "cv_shar" / "train" / "000000.tsv"
    date = part.stat().st_mtime_ns
    write_shard(bad_corpus / "cv_shar" / "train", [make_cut("c1")], "000001")
    assert prepare(bad_corpus, data).returncode == 0
    assert validate(data / "train").n_utts == 3
    assert part.stat().st_mtime_ns == date


def test_skipped_bad_shard_is_listed(bad_corpus, tmp_path):
    data = tmp_path / "data"
    result = prepare(bad_corpus, data, "--skip_bad_shards")
    assert result.returncode == 0
    assert "skipped shard cv_shar/train/000001: " in result.stderr
    summary = json.loads((data / "train" / "prepare.json").read_text())
    assert (summary["kept"], summary["n_shards"]) == (2, 3)
    (bad,) = summary["bad_shards"]
    assert bad["shard"] == "cv_shar/train/000001"
    assert "cut off inside member 'c1.flac'" in bad["error"]


def test_supervisions_of_a_part_are_counted_and_told(tmp_path):
    cuts = [make_cut("a", duration=0.05), make_cut("b", start=0.05), make_cut("c")]
    write_shard(tmp_path / "cv_shar" / "train", cuts)
    data = tmp_path / "data"
    for _ in range(2):  # the second run reads the records of the first
        result = prepare(tmp_path, data)
        assert "train: 2 of them are longer than their supervision" in result.stderr
    summary = json.loads((data / "train" / "prepare.json").read_text())
    assert (summary["kept"], summary["n_partly_labelled"]) == (3, 2)
    assert summary["corpora"]["cv"]["n_partly_labelled"] == 2


def test_a_train_without_a_dev_is_told(tmp_path, caplog):
    caplog.set_level("INFO")
    write_shard(tmp_path / "cv_shar" / "train", [make_cut("a")])
    merge_parts(make_parts(find_shards(tmp_path), tmp_path / "data"), tmp_path / "data")
    assert "data: a train and no dev, without which nothing is trained" in caplog.text
    caplog.clear()
    write_shard(tmp_path / "cv_shar" / "dev", [make_cut("b")])
    merge_parts(make_parts(find_shards(tmp_path), tmp_path / "data"), tmp_path / "data")
    assert "dev: kept 1 of 1" in caplog.text and "no dev" not in caplog.text


def test_bad_shard_of_a_job_array_is_known_to_the_merge(bad_corpus, tmp_path):
    data = tmp_path / "data"
    for share in ("0/3", "2/3"):
        assert prepare(bad_corpus, data, "--shards", share).returncode == 0
    assert prepare(bad_corpus, data, "--shards", "1/3").returncode == 1
    result = prepare(bad_corpus, data, "--merge")
    assert result.returncode == 1 and "cut off inside" in result.stderr
    assert prepare(bad_corpus, data, "--merge", "--skip_bad_shards").returncode == 0
    assert validate(data / "train").n_utts == 2


def test_same_id_in_two_shards_names_both(tmp_path):
    split = tmp_path / "cv_shar" / "train"
    write_shard(split, [make_cut("a"), make_cut("b")], "000000")
    write_shard(split, [make_cut("b")], "000001")
    made = make_parts(find_shards(tmp_path), tmp_path / "data")
    with pytest.raises(ShardError) as err:
        merge_parts(made, tmp_path / "data")
    for word in ("cv_b_eng", "recording.000000.tar", "recording.000001.tar"):
        assert word in str(err.value)
    assert contents(tmp_path / "data") == {}


def test_sets_of_corpora_that_are_left_out_now_are_said(tmp_path):
    downloads, data = tmp_path / "downloads", tmp_path / "data"
    write_shard(downloads / "cv_shar/train", [make_cut("a")])
    for split in ("dev", "test"):
        write_shard(downloads / "fleurs_shar" / split, [make_cut("b")])
    assert "earlier run" not in prepare(downloads, data).stderr
    result = prepare(downloads, data, "--skip_corpora", "fleurs")
    assert result.returncode == 0
    assert f"{data}/dev {data}/test_fleurs: of an earlier run, no" in result.stderr


def test_set_without_utterances_is_an_error(tmp_path):
    downloads, data = tmp_path / "downloads", tmp_path / "data"
    write_shard(downloads / "cv_shar" / "dev", [make_cut(ipa="", phones="")])
    result = prepare(downloads, data)
    assert result.returncode == 1
    assert "set dev: no utterance left, kept 0 of 1 (no_ipa=1)" in result.stderr
    assert contents(data) == {}


def test_full_disk_is_one_line_and_leaves_nothing_half(
    corpus, expected, tmp_path, monkeypatch
):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = prepare(corpus, tmp_path)
    monkeypatch.undo()
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    assert [path for path in tmp_path.rglob("*.*") if path.is_file()] == []
    assert prepare(corpus, tmp_path).returncode == 0
    assert contents(tmp_path) == expected


def test_load_parts_refuses_outdated_parts(tmp_path):
    downloads, data = tmp_path / "downloads", tmp_path / "data"
    split = downloads / "cv_shar" / "dev"
    write_shard(split, [make_cut("a")])
    make_parts(find_shards(downloads), data)
    assert len(load_parts(find_shards(downloads), data)) == 1
    write_shard(split, [make_cut("a"), make_cut("b")])
    with pytest.raises(ShardError, match="its input changed since"):
        load_parts(find_shards(downloads), data)


@pytest.mark.parametrize("rounds", [1, 2])
def test_compressed_tar_is_unpacked_once_and_counted(tmp_path, rounds):
    """lhotse's audio writer compresses a `.tar.gz` twice."""
    downloads, data = tmp_path / "downloads", tmp_path / "data"
    split = downloads / "cv_shar" / "dev"
    write_shard(split, [make_cut("a"), make_cut("b")])
    plain = split / "recording.000000.tar"
    n_bytes = plain.stat().st_size
    packed = plain.read_bytes()
    for _ in range(rounds):
        packed = gzip.compress(packed)
    plain.unlink()
    (split / "recording.000000.tar.gz").write_bytes(packed)
    summaries = merge_parts(make_parts(find_shards(downloads), data), data)
    assert summaries["dev"].unpacked_bytes == n_bytes
    for _, location in read_scp(data / "dev" / "wav.scp"):
        assert len(read_audio(location)) == 1600
    unpacked = data / "unpacked" / "cv_shar" / "dev" / "000000.tar"
    date = unpacked.stat().st_mtime_ns
    make_parts(find_shards(downloads), data)
    assert unpacked.stat().st_mtime_ns == date
    whole = unpacked.read_bytes()
    for damage in (unpacked.unlink, lambda: unpacked.write_bytes(whole[:700])):
        damage()
        make_parts(find_shards(downloads), data)
        assert unpacked.read_bytes() == whole


def prepared_locations(downloads: Path, data: Path) -> list[tuple[str, str]]:
    """`wav.scp` of dev, whose second cut has no audio."""
    summaries = merge_parts(make_parts(find_shards(downloads), data), data)
    assert summaries["dev"].dropped == {"no_audio": 1}
    return list(read_scp(data / "dev" / "wav.scp"))


def test_compressed_shard_that_lhotse_wrote_is_read(tmp_path):
    lhotse = pytest.importorskip("lhotse")
    from lhotse.shar import AudioTarWriter, JsonlShardWriter

    split = tmp_path / "cv_shar" / "dev"
    split.mkdir(parents=True)
    cuts = [make_cut("a"), make_cut("b")]
    del cuts[1]["recording"]
    speech = np.linspace(-0.5, 0.5, 1600, dtype=np.float32)
    with (
        JsonlShardWriter(f"{split}/cuts.%06d.jsonl.gz", shard_size=2) as lines,
        AudioTarWriter(f"{split}/recording.%06d.tar.gz", shard_size=2) as audio,
    ):
        for cut in cuts:
            lines.write(cut)
        recording = lhotse.Recording.from_dict(cuts[0]["recording"])
        audio.write("a", speech[None], 16_000, recording)
        audio.write_placeholder("b")
    ((utt_id, location),) = prepared_locations(tmp_path, tmp_path / "data")
    assert utt_id == "cv_a_eng"
    np.testing.assert_allclose(read_audio(location), speech, atol=2**-15)


def test_lhotse_reads_a_shard_of_ours_that_is_compressed(tmp_path):
    pytest.importorskip("lhotse")
    from lhotse.shar.readers.lazy import LazySharIterator

    split = tmp_path / "cv_shar" / "dev"
    cuts = [make_cut("a"), make_cut("b")]
    del cuts[1]["recording"]
    write_cuts(split / "cuts.000000.jsonl.gz", cuts)
    plain = split / "recording.000000.tar"
    write_tar(plain, [*members_of(cuts[0]), ("b.nodata", b""), ("b.nometa", b"")])
    packed = split / "recording.000000.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    theirs = list(LazySharIterator(in_dir=str(split)))
    assert [cut.has_recording for cut in theirs] == [True, False]
    ((_, location),) = prepared_locations(tmp_path, tmp_path / "data")
    np.testing.assert_array_equal(theirs[0].load_audio()[0], read_audio(location))


def test_truncated_compressed_tar_is_named(tmp_path):
    split = tmp_path / "cv_shar" / "dev"
    write_shard(split, [make_cut("a")])
    plain = split / "recording.000000.tar"
    plain.write_bytes(gzip.compress(plain.read_bytes())[:-20])
    with pytest.raises(ShardError, match="recording.000000.tar: cut off or damaged"):
        make_parts(find_shards(tmp_path), tmp_path / "data")
    assert list((tmp_path / "data").rglob("*.tar")) == []


def test_audio_is_never_read(tmp_path):
    """Bytes that are no audio at all pass stage 1: it looks at headers only."""
    split = tmp_path / "cv_shar" / "dev"
    cut = make_cut("a")
    write_shard(split, [cut])
    noise = bytes(range(256)) * (len(encode(1600)) // 256)
    write_tar(split / "recording.000000.tar", members_of(cut, noise))
    made = make_parts(find_shards(tmp_path), tmp_path / "data")
    assert [part.n_utts for part in made.values()] == [1]


def test_bad_options_are_refused(tmp_path):
    for options in (("--shards", "3/3"), ("--shards", "x"), ("--nonsense",)):
        result = prepare(tmp_path, tmp_path, *options)
        assert result.returncode == 2
    result = prepare(tmp_path / "nowhere", tmp_path)
    assert result.returncode == 1
    assert "no such folder; run stage 0" in result.stderr
    assert "Traceback" not in result.stderr
