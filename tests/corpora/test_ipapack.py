"""Stage 0 against a hub on loopback with every fault that a network has."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from threading import Event

import pytest
from hub_server import TOKEN
from huggingface_hub import constants

from powsm.corpora import ipapack as module
from powsm.corpora.ipapack import (
    download,
    find_faults,
    read_manifest,
    select,
    update_manifest,
)
from powsm.hub import HubError, Patience, RemoteFile, list_files

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "local/download_ipapack.py"
AT_ONCE = Patience(tries=3, first_pause_s=0)
NAME = "anyspeech/ipapack_plus_1"
TAR = bytes(range(251)) * 1200  # 301,200 bytes, no two neighbours of 251 alike
TARS = [f"cv_shar/train/recording.{n:06d}.tar" for n in range(3)]
FILES = {
    "README.md": b"# not a shard\n",
    "cv_shar/train/notes.txt": b"from git, not from large file storage\n",
    **{path: TAR[n:] for n, path in enumerate(TARS)},
    "fleurs_shar/hi_in-test/cuts.000000.jsonl.gz": b"cuts of a test set",
}
SHARDS = {path: data for path, data in FILES.items() if path != "README.md"}


@pytest.fixture
def filled(hub, monkeypatch):
    """A hub with one data set, which this process takes for the real one."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    hub.add_repo(NAME, FILES)
    return hub


def fetch_all(folder: Path, **settings) -> int:
    files = select(list_files(NAME, AT_ONCE))
    return download(files, folder, nj=2, patience=AT_ONCE, **settings)


def tree(folder: Path) -> dict[str, bytes]:
    """Files below a folder, without the manifest."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != module.MANIFESTS
    }


def test_all_shards_come_once_and_nothing_else(filled, tmp_path):
    assert fetch_all(tmp_path) == len(SHARDS)
    assert tree(tmp_path) == SHARDS
    assert filled.served == {path: len(data) for path, data in SHARDS.items()}
    # and not again
    assert fetch_all(tmp_path) == 0
    assert filled.served == {path: len(data) for path, data in SHARDS.items()}


# fault of one tar, bytes of it that are fetched in all
FAULTS = {
    "cut half-way": ({"cut_at": 150_000}, len(TAR)),
    "cut at once": ({"cut_at": 0}, len(TAR)),
    "cut twice": ({"cut_at": 100_000, "times": 2}, len(TAR)),
    "stalled": ({"stall_at": 150_000}, len(TAR)),
    "ended early": ({"end_at": 299_999}, len(TAR)),
    # the hash is that of the whole, so the whole comes again
    "corrupted byte": ({"flip_at": 150_000}, 2 * len(TAR)),
    "500": ({"status": 500, "times": 2}, len(TAR)),
    "503 of the other host": ({"status": 503}, len(TAR)),
    "429": ({"status": 429, "headers": {"Retry-After": "0"}, "times": 2}, len(TAR)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost_or_fetched_twice(filled, tmp_path, monkeypatch, name):
    if name == "stalled":
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 2)
    fault, fetched = FAULTS[name]
    filled.fail(f"GET /{'cdn' if 'other' in name else ''}.*{TARS[0]}", **fault)
    fetch_all(tmp_path)
    assert tree(tmp_path) == SHARDS
    assert filled.served[TARS[0]] == fetched
    for path in set(SHARDS) - {TARS[0]}:
        assert filled.served[path] == len(SHARDS[path])


def test_server_without_ranges_starts_the_file_over(filled, tmp_path):
    filled.fail(TARS[0], cut_at=100_000)
    filled.fail(TARS[0], ignore_range=True)
    fetch_all(tmp_path)
    assert tree(tmp_path) == SHARDS
    assert filled.served[TARS[0]] == 100_000 + len(TAR)


def test_line_cut_at_every_tenth_still_brings_the_file(filled, tmp_path):
    tenth = len(TAR) // 10
    for position in range(tenth, len(TAR), tenth):
        filled.fail(TARS[0], cut_at=position)
    fetch_all(tmp_path)  # with three tries
    assert tree(tmp_path) == SHARDS
    assert filled.served[TARS[0]] == len(TAR)


def test_what_has_come_is_kept_when_told_to_stop(filled, tmp_path):
    stop = Event()
    stop.set()
    path = list(FILES)[-1]
    (file,) = (f for f in list_files(NAME, AT_ONCE) if f.path == path)
    assert download([file], tmp_path, patience=AT_ONCE, stop=stop) == 1
    assert tree(tmp_path) == {path: FILES[path]}


def test_retry_after_is_waited_for(filled, tmp_path):
    class Pauses(Event):
        seconds = []

        def wait(self, timeout=None):
            self.seconds.append(timeout)
            return False

    filled.fail(f"GET /datasets.*{TARS[0]}", status=429, headers={"Retry-After": "77"})
    fetch_all(tmp_path, stop=Pauses())
    assert Pauses.seconds == [77]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"cut_at": 1000}, "connection to .* fails"),
        ({"end_at": 1000}, "the answer ended at 1,000 of 301,200 bytes"),
        ({"flip_at": 9}, "not the bytes of its hash on the hub"),
        ({"status": 503}, "the hub answers 503"),
        ({"status": 429}, "too many requests"),
        ({"status": 403}, "no access"),
        ({"status": 404}, "no such thing"),
    ],
    ids=str,
)
def test_lasting_fault_ends_with_one_line_and_no_bad_file(
    filled, tmp_path, fault, message
):
    filled.fail(TARS[0], times=1000, **fault)
    with pytest.raises(HubError, match=message) as caught:
        fetch_all(tmp_path)
    assert TARS[0] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert filled.count(f"GET /datasets.*{TARS[0]}") <= 1 + AT_ONCE.tries
    assert not (tmp_path / TARS[0]).exists()
    # mended, only what was missing comes
    before = filled.served.copy()
    filled.faults.clear()
    fetch_all(tmp_path)
    assert tree(tmp_path) == SHARDS
    if "flip_at" not in fault:
        assert filled.served[TARS[0]] == len(TAR)
    # a corrupted file did not keep the others from coming
    else:
        assert filled.served[TARS[2]] == before[TARS[2]] == len(TAR) - 2


def test_hub_that_goes_away_ends_the_download(filled, tmp_path):
    files = select(list_files(NAME, AT_ONCE))
    filled.stop()
    with pytest.raises(HubError, match="connection to .* fails.*goes on where it was"):
        download(files, tmp_path, nj=2, patience=AT_ONCE)


def test_part_of_another_version_is_not_gone_on_with(filled, tmp_path):
    filled.fail(TARS[0], cut_at=1000, times=3)
    with pytest.raises(HubError):
        fetch_all(tmp_path)
    filled.repos[f"datasets/{NAME}"].files[TARS[0]] = b"new"
    fetch_all(tmp_path)
    assert (tmp_path / TARS[0]).read_bytes() == b"new"


def test_file_that_another_process_fetches_is_left_to_it(filled, tmp_path):
    file = next(f for f in list_files(NAME, AT_ONCE) if f.path == TARS[0])
    file.part(tmp_path).parent.mkdir(parents=True)
    with open(file.part(tmp_path), "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(HubError, match="another process is fetching it"):
            fetch_all(tmp_path)


def test_file_system_without_locks_will_do(filled, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(module.fcntl, "flock", flock)
    fetch_all(tmp_path)
    assert tree(tmp_path) == SHARDS


def test_part_that_only_wants_its_name_is_not_fetched(filled, tmp_path):
    file = next(f for f in list_files(NAME, AT_ONCE) if f.path == TARS[0])
    file.part(tmp_path).parent.mkdir(parents=True)
    file.part(tmp_path).write_bytes(TAR)
    fetch_all(tmp_path)
    assert tree(tmp_path) == SHARDS
    assert TARS[0] not in filled.served


def test_token_stays_with_the_hub(filled, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    filled.fail("cdn", status=503)
    fetch_all(tmp_path)
    for request in filled.requests:
        sent = request.headers.get("authorization")
        assert sent == (None if "/cdn/" in request.path else f"Bearer {TOKEN}")
    assert TOKEN not in caplog.text


def test_disk_is_looked_at_first(filled, tmp_path, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(9, 9, 903_000))
    with pytest.raises(HubError, match=r"0\.0 GB free: make room"):
        fetch_all(tmp_path / "downloads")
    assert not tmp_path.joinpath("downloads").exists()
    assert not any(filled.served.values())
    # what is here already needs no more room
    (tmp_path / TARS[0]).parent.mkdir(parents=True)
    (tmp_path / TARS[0]).write_bytes(TAR)
    fetch_all(tmp_path)


# Choice and manifest


def remote(path: str, repository: str = NAME, hash: str = "0" * 64) -> RemoteFile:
    return RemoteFile(repository, "1" * 40, path, 1, hash)


LISTED = [
    remote(f"{split}/x.tar")
    for split in ("cv_shar/dev", "fleurs_shar/hi_in-dev", "mls_dutch_shar/dev")
]


@pytest.mark.parametrize(
    ("include", "exclude", "corpora"),
    [
        ([], [], "cv fleurs mls_dutch"),
        (["mls_*", "cv"], [], "cv mls_dutch"),
        (["fleurs/hi_in-*"], [], "fleurs"),
        ([], ["cv/dev"], "fleurs mls_dutch"),
        (["*"], ["*u*"], "cv"),
    ],
)
def test_corpora_are_chosen_by_pattern(include, exclude, corpora):
    assert " ".join(f.corpus for f in select(LISTED, include, exclude)) == corpora


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        (["flores"], [], "no corpus fits 'flores': there is cv fleurs mls_dutch"),
        ([], ["cv_shar"], "no corpus fits 'cv_shar'"),
        (["cv"], ["cv"], "nothing is left"),
    ],
)
def test_choice_of_nothing_is_an_error(include, exclude, message):
    with pytest.raises(HubError, match=message):
        select(LISTED, include, exclude)


def test_one_file_of_two_data_sets_must_be_the_same():
    same = remote(LISTED[0].path, "anyspeech/ipapack_plus_2")
    assert select([*LISTED, same]) == LISTED
    other = remote(LISTED[0].path, "anyspeech/ipapack_plus_train_1", "f" * 64)
    with pytest.raises(HubError, match="one file in .*_1 and another in .*train_1"):
        select([*LISTED, other])


def test_manifest_grows_with_what_is_chosen(tmp_path):
    update_manifest(tmp_path, LISTED, LISTED[:1])
    assert read_manifest(tmp_path) == LISTED[:1]
    update_manifest(tmp_path, LISTED, LISTED[2:])
    assert read_manifest(tmp_path) == [LISTED[0], LISTED[2]]
    # another data set has a file of its own; what the hub dropped is forgotten
    more = remote("tamil_shar/dev/x.tar", "a/b")
    update_manifest(tmp_path, [more], [more])
    update_manifest(tmp_path, LISTED[2:], LISTED[2:])
    assert read_manifest(tmp_path) == [LISTED[2], more]


def test_manifest_that_says_the_same_is_not_written(tmp_path):
    update_manifest(tmp_path, LISTED, LISTED)
    (path,) = (tmp_path / "manifest").iterdir()
    before = path.stat()
    update_manifest(tmp_path, LISTED, LISTED)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_damaged_manifest_is_named(tmp_path):
    with pytest.raises(HubError, match="no manifest yet"):
        read_manifest(tmp_path)
    update_manifest(tmp_path, LISTED, LISTED)
    (path,) = (tmp_path / "manifest").iterdir()
    path.write_text(path.read_text()[:-70])
    with pytest.raises(HubError, match=r"plus_1\.tsv:3: not a line"):
        read_manifest(tmp_path)


def test_faults_are_found_by_size_and_by_hash(filled, tmp_path):
    files = select(list_files(NAME, AT_ONCE))
    download(files, tmp_path, patience=AT_ONCE)
    (tmp_path / TARS[0]).unlink()
    (tmp_path / TARS[1]).write_bytes(b"short")
    (tmp_path / TARS[2]).write_bytes(bytes(len(TAR) - 2))
    by_size = list(find_faults(files, tmp_path))
    assert [Path(fault.split(":")[0]).name[-5:] for fault in by_size] == [
        "0.tar",
        "1.tar",
    ]
    assert "is missing" in by_size[0]
    assert "5 of 301,199 bytes" in by_size[1]
    by_hash = list(find_faults(files, tmp_path, hashes=True, nj=2))
    assert by_hash[:2] == by_size
    assert "not the bytes of the hub; remove it" in by_hash[2]


# As a user runs it


def environment(hub, **more: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return inherited | hub.env | {"PYTHONPATH": str(ROOT)} | more


def run_stage_0(hub, root: Path, *options: str, **more: str):
    """egs2/powsm/s2t1/run.sh, stage 0 alone, without real pauses."""
    command = [
        ROOT / "egs2/powsm/s2t1/run.sh",
        *("--stage", "0", "--stop_stage", "0"),
        *(f"--download_opts={o}" for o in (f"--repositories={NAME}", *options)),
        *("--download_opts=--first_pause=0.01", "--download_opts=--tries=3"),
    ]
    env = environment(hub, POWSM_ROOT=str(root), **more)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def last_error(done) -> str:
    """The line of the script; the driver's own, on how to go on, follows it."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (line,) = [x for x in done.stderr.splitlines() if "download_ipapack.py: error" in x]
    return line


def test_recipe_downloads_through_all_faults_at_once(hub, tmp_path):
    hub.add_repo(NAME, FILES)
    hub.fail("/api/", status=503)
    hub.fail("tree", status=429, headers={"Retry-After": "0"})
    hub.fail(TARS[0], cut_at=150_000)
    hub.fail(TARS[1], flip_at=7)
    hub.fail(f"cdn.*{TARS[2]}", status=500)
    done = run_stage_0(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "downloads") == SHARDS
    assert hub.served[TARS[0]] == len(TAR)
    assert hub.served[TARS[1]] == 2 * len(TAR) - 2
    assert "%|" not in done.stderr  # no progress bar without a terminal
    assert "5 files, 5 of them fetched now" in done.stderr

    done = run_stage_0(hub, tmp_path, "--verify")
    assert done.returncode == 0, done.stderr
    assert "all 5 files are as on the hub" in done.stderr


def test_recipe_gives_up_after_the_bound_and_goes_on_the_next_time(hub, tmp_path):
    hub.add_repo(NAME, FILES)
    hub.fail(TARS[0], cut_at=150_000, times=1000)
    line = last_error(run_stage_0(hub, tmp_path))
    assert f"{TARS[0]}: the connection to {hub.url} fails" in line
    assert "it goes on where it was" in line
    # one try to half-way, three that bring nothing more
    assert hub.count(f"GET /cdn.*{TARS[0]}") <= 4
    hub.faults.clear()
    assert run_stage_0(hub, tmp_path).returncode == 0
    assert tree(tmp_path / "downloads") == SHARDS
    assert hub.served == {path: len(data) for path, data in SHARDS.items()}


def test_recipe_takes_part_of_the_corpora(hub, tmp_path):
    hub.add_repo(NAME, FILES)
    done = run_stage_0(hub, tmp_path, "--include=fleurs/hi_in-*")
    assert done.returncode == 0, done.stderr
    assert set(tree(tmp_path / "downloads")) == {list(FILES)[-1]}


def put(folder: Path) -> None:
    """A complete copy that stage 0 did not make."""
    for path, data in SHARDS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def test_recipe_uses_a_copy_of_ones_own_as_it_is(hub, tmp_path):
    hub.add_repo(NAME, FILES)
    copy = tmp_path / "copy"
    put(copy)
    (copy / TARS[2]).unlink()
    done = run_stage_0(hub, tmp_path, IPAPACK_PLUS=str(copy))
    assert done.returncode == 0, done.stderr
    assert tree(copy) == SHARDS
    assert hub.served == {TARS[2]: len(SHARDS[TARS[2]])}


def test_copy_that_cannot_be_written_will_do_when_complete(hub, tmp_path):
    hub.add_repo(NAME, FILES)
    put(tmp_path)
    (tmp_path / module.MANIFESTS).write_text("in the way of the folder")
    done = run_stage_0(hub, tmp_path, IPAPACK_PLUS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "no manifest is kept: " in done.stderr
    assert not hub.served


def test_verify_finds_what_another_client_took_for_the_whole(hub, tmp_path):
    hub.add_repo(NAME, FILES)
    assert run_stage_0(hub, tmp_path).returncode == 0
    paths = [tmp_path / "downloads" / path for path in TARS]
    paths[0].unlink()
    paths[1].write_bytes(TAR[:3])
    paths[2].write_bytes(bytes(len(TAR) - 2))
    hub.stop()  # needs no network
    done = run_stage_0(hub, tmp_path, "--verify")
    assert "3 of 5 files are not as on the hub" in last_error(done)
    for path in paths:
        assert f"{path}: " in done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "connection to http://127.0.0.1:9 fails",
        ),
    ],
    ids=["switch", "refused"],
)
def test_recipe_without_network_ends_with_one_line(hub, tmp_path, more, message):
    assert message in last_error(run_stage_0(hub, tmp_path, **more))


def test_full_disk_ends_with_one_line_and_its_part_is_used(hub, tmp_path):
    hub.add_repo(NAME, FILES)
    command = f"ulimit -f 100; exec {sys.executable} {SCRIPT} --repositories {NAME}"
    done = subprocess.run(
        ["bash", "-c", f"{command} --downloads {tmp_path}"],
        env=environment(hub),
        capture_output=True,
        text=True,
    )
    assert "recording.00000" in last_error(done)
    assert "File too large" in last_error(done)
    assert run_stage_0(hub, tmp_path, IPAPACK_PLUS=str(tmp_path)).returncode == 0
    assert tree(tmp_path) == SHARDS


def test_killed_download_goes_on_where_it_was(hub, tmp_path):
    hub.add_repo(NAME, {TARS[0]: TAR})
    hub.fail(TARS[0], stall_at=200_000)
    command = [sys.executable, SCRIPT, "--repositories", NAME, "--downloads", tmp_path]
    process = subprocess.Popen(command, env=environment(hub), stderr=subprocess.DEVNULL)
    split = (tmp_path / TARS[0]).parent
    for _ in range(600):
        parts = list(split.glob(".*.part"))
        if parts and parts[0].stat().st_size == 200_000:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.stat().st_size for path in split.iterdir()] == [200_000]
    assert run_stage_0(hub, tmp_path, IPAPACK_PLUS=str(tmp_path)).returncode == 0
    assert tree(tmp_path) == {TARS[0]: TAR}
    assert hub.served[TARS[0]] == len(TAR)
