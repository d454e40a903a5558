"""Stage 0 of the paper: bounded tries, and no part of a folder for the whole."""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.hf_api import RepoFile

SCRIPT = Path(__file__).parents[1] / "local/download_ipapack.py"


@pytest.fixture(scope="module")
def stage0():
    spec = importlib.util.spec_from_file_location("download_ipapack", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def http_error(status: int) -> HfHubHTTPError:
    request = httpx.Request("GET", "http://127.0.0.1")
    return HfHubHTTPError(str(status), response=httpx.Response(status, request=request))


def caused_by(err: Exception) -> Exception:
    outer = LocalEntryNotFoundError("not in the cache")
    outer.__cause__ = err
    return outer


@pytest.mark.parametrize(
    ("err", "passing"),
    [
        (http_error(429), True),
        (http_error(503), True),
        (http_error(401), False),
        (http_error(403), False),
        (http_error(404), False),
        (caused_by(http_error(429)), True),
        (caused_by(http_error(404)), False),
        (httpx.ReadError("cut"), True),
        (LocalEntryNotFoundError("offline"), False),
        (OSError(28, "No space left on device"), False),
    ],
    ids=str,
)
def test_only_faults_that_can_pass_are_tried_again(stage0, err, passing):
    pauses = []
    calls = []

    def fetch():
        calls.append(1)
        raise err

    with pytest.raises(type(err)):
        stage0.with_tries(fetch, tries=4, pause=pauses.append)
    assert len(calls) == (4 if passing else 1)
    assert len(pauses) == len(calls) - 1


def test_pauses_grow_and_have_a_bound(stage0):
    pauses = []

    def fetch():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        stage0.with_tries(fetch, tries=20, pause=pauses.append)
    assert 2.5 <= pauses[0] <= 7.5  # 5 s, with a jitter of one half
    assert pauses[-1] <= 900
    assert sum(pauses[:3]) < sum(pauses[3:6])


def test_part_of_a_folder_is_not_taken_for_the_whole(stage0, monkeypatch, tmp_path):
    files = {"cv_shar/train/cuts.000000.jsonl.gz": 3, "cv_shar/train/x.tar": 5}
    rounds = []

    def snapshot_download(repository, local_dir, **_):
        rounds.append(repository)
        for name, size in files.items():
            path = local_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # the first time the tar is cut short and success is reported
            short = len(rounds) == 1 and name.endswith(".tar")
            path.write_bytes(bytes(2 if short else size))

    tree = [RepoFile(path=n, size=s, oid="0") for n, s in files.items()]
    monkeypatch.setattr(stage0, "snapshot_download", snapshot_download)
    monkeypatch.setattr(
        stage0,
        "HfApi",
        lambda: SimpleNamespace(list_repo_tree=lambda *a, **k: iter(tree)),
    )
    args = argparse.Namespace(downloads=tmp_path, include=None, exclude=None, nj=1)
    with pytest.raises(stage0.IncompleteError, match=r"x\.tar: 2 of 5 bytes"):
        stage0.fetch("a/b", args)
    stage0.fetch("a/b", args)


def test_offline_ends_with_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--downloads", tmp_path],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("download_ipapack.py: error: anyspeech")
    assert "ipapack_plus_1: LocalEntryNot" in last
