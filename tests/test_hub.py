"""What the hub has, how long a fault is borne, and what is said in the end."""

import email.utils
import errno
import sys
import time
from threading import Event

import httpx
import pytest
from hub_server import git_sha1, sha256
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from powsm import hub as hub_module
from powsm.hub import (
    CorruptedError,
    HubError,
    IncompleteError,
    Patience,
    RemoteFile,
    StoppedError,
    asked_wait_s,
    explain,
    fetch_model,
    list_files,
)

AT_ONCE = Patience(tries=3, first_pause_s=0)


class Pauses(Event):
    """An event that takes note of how long it would have been waited for."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return False


def http_error(status: int, **headers: str) -> HfHubHTTPError:
    request = httpx.Request("GET", "http://127.0.0.1")
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = httpx.Response(status, request=request, headers=names)
    return HfHubHTTPError("pages\nof advice", response=answer)


@pytest.mark.parametrize(
    ("err", "may_pass"),
    [
        (http_error(429), True),
        (http_error(429, Retry_After="3601"), False),  # more than an hour
        (http_error(503), True),
        (http_error(401), False),
        (http_error(403), False),
        (http_error(404), False),
        (http_error(416), False),
        (httpx.ReadError("cut"), True),
        (httpx.ReadTimeout("stalled"), True),
        (httpx.ConnectError("no route"), True),
        (httpx.UnsupportedProtocol("ftp"), False),
        (IncompleteError(), True),
        (CorruptedError(), True),
        (OfflineModeIsEnabled(), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (KeyError("a fault of ours"), False),
    ],
    ids=repr,
)
def test_only_faults_that_can_pass_are_tried_again(err, may_pass):
    tries, stop = [], Pauses()

    def attempt():
        tries.append(1)
        raise err

    with pytest.raises(type(err)):
        Patience(tries=4).persist(attempt, "x.tar", stop)
    assert len(tries) == (4 if may_pass else 1)
    assert len(stop.seconds) == len(tries) - 1


def test_pauses_double_with_jitter_and_have_a_bound():
    patience = Patience(first_pause_s=4, longest_pause_s=50)
    middle = [4, 8, 16, 32, 50, 50]
    for number, seconds in enumerate(middle, 1):
        drawn = {patience.pause_s(number, httpx.ReadError("")) for _ in range(50)}
        assert seconds / 2 <= min(drawn) < max(drawn) <= 1.5 * seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry_After": "37"}, 37),
        ({"Retry_After": "soon"}, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api";r=9;t=55'}, 0),  # nine requests are left
        ({"RateLimit": '"api";r=0;t=55', "Retry_After": "60"}, 60),
    ],
)
def test_server_says_how_long(headers, seconds):
    err = http_error(429, **headers)
    assert asked_wait_s(err) == seconds
    assert Patience(first_pause_s=0).pause_s(1, err) == seconds


def test_server_says_until_when():
    date = email.utils.formatdate(time.time() + 1000, usegmt=True)
    assert 900 < asked_wait_s(http_error(503, Retry_After=date)) <= 1000


def test_tries_count_anew_only_when_further_than_ever():
    # hundredths of a file after each try: a byte is wrong at the end, twice
    ways, tries = [10, 20, 30, 0, 30, 31, 0, 5, 31, 99], []

    def attempt():
        tries.append(1)
        raise CorruptedError

    reached = iter([0, *ways])
    with pytest.raises(CorruptedError):
        Patience(tries=4).persist(attempt, "", Pauses(), lambda: next(reached))
    # 31 is the last that is new: it counts as the first of four, 0, 5 and 31 follow
    assert len(tries) == ways.index(31) + 4


def test_pause_ends_when_the_download_does():
    stop = Event()
    stop.set()

    def attempt():
        raise httpx.ReadError("cut")

    with pytest.raises(StoppedError):
        Patience(first_pause_s=3600).persist(attempt, "x.tar", stop)


@pytest.fixture
def at_hub(hub, monkeypatch):
    """A hub that this process takes for the real one."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    return hub


def test_shards_are_listed_with_sizes_and_hashes(at_hub):
    files = {
        "README.md": b"#",
        "cv_shar/train/cuts.000000.jsonl.gz": b"cuts",
        "cv_shar/train/notes.txt": b"a",
        "cv_shar/stray.tar": b"",
        "other/train/x.tar": b"",
    }
    repo = at_hub.add_repo("a/b", files)
    cuts, notes = list_files("a/b", AT_ONCE)
    path = "cv_shar/train/cuts.000000.jsonl.gz"
    assert cuts == RemoteFile("a/b", repo.sha, path, 4, sha256(b"cuts"))
    assert (cuts.corpus, cuts.split) == ("cv", "train")
    assert notes.hash == git_sha1(b"a")
    for file in (cuts, notes):
        digest = file.hasher()
        digest.update(files[file.path])
        assert digest.hexdigest() == file.hash


def test_long_list_survives_a_fault_on_its_second_page(at_hub):
    names = [f"cv_shar/train/recording.{n:06d}.tar" for n in range(250)]
    at_hub.add_repo("a/b", dict.fromkeys(names, b""))
    at_hub.fail("cursor=100", status=502)
    assert [file.path for file in list_files("a/b", AT_ONCE)] == names
    assert at_hub.count("/tree/") == 4


@pytest.mark.parametrize(
    ("link", "follows"),
    [
        ("{here}/api/next?cursor=2", True),
        ("/api/next?cursor=2", True),
        ("http://thief.example/api/next", False),
        ("https://127.0.0.1:1/api/next", False),
        ("//thief.example/next", False),
        ("http://127.0.0.1@thief.example/next", False),
    ],
)
def test_token_goes_to_no_other_host(link, follows):
    here = "http://127.0.0.1:8080"
    page = httpx.Response(
        200,
        headers={"Link": f'<{link.format(here=here)}>; rel="next"'},
        request=httpx.Request("GET", f"{here}/api/tree"),
    )
    if follows:
        assert hub_module._next_page(page, "some/set") == f"{here}/api/next?cursor=2"
    else:
        with pytest.raises(HubError, match="some/set: .*no token leaves"):
            hub_module._next_page(page, "some/set")


def test_path_that_leads_out_is_refused(at_hub):
    at_hub.add_repo("a/b", {"cv_shar/../passwd": b""})
    with pytest.raises(HubError, match="leads out"):
        list_files("a/b", AT_ONCE)


@pytest.mark.parametrize(
    ("fault", "message", "requests"),
    [
        ({"status": 401}, "401: it is private or gated.*hf auth login", 1),
        ({"status": 403}, "403: no access: ask for it", 1),
        ({"status": 404}, "404: there is no such thing", 1),
        ({"status": 429}, "429: too many requests; lower --nj", 3),
        ({"status": 500}, "the hub answers 500: run the stage again", 3),
    ],
    ids=str,
)
def test_list_gives_up_in_one_line(at_hub, fault, message, requests):
    at_hub.add_repo("a/b")
    at_hub.fail("/api/", times=99, **fault)
    with pytest.raises(HubError, match=f"^a/b: .*{message}") as caught:
        list_files("a/b", AT_ONCE)
    assert "\n" not in str(caught.value)
    assert len(at_hub.requests) == requests


def test_hub_that_is_away_is_named(at_hub):
    at_hub.stop()
    with pytest.raises(HubError, match=f"connection to {at_hub.url} fails"):
        list_files("a/b", AT_ONCE)


def test_answer_of_something_else_is_no_list(at_hub):
    at_hub.fail("/api/", status=200)  # an empty page, as of a portal
    with pytest.raises(HubError, match="does not answer as a hub"):
        list_files("a/b", AT_ONCE)


def test_offline_switch_and_full_disk_have_words_of_their_own():
    assert "HF_HUB_OFFLINE is set" in explain(OfflineModeIsEnabled(), "a/b")
    full = OSError(errno.ENOSPC, "No space left on device", "cv_shar/x.tar")
    assert explain(full, "").startswith("cv_shar/x.tar: no space left")
    assert "another process" in explain(BlockingIOError(), "x.tar")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://127.0.0.1:1"])
def test_proxy_that_cannot_be_used_is_named(at_hub, monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)  # as where it is not installed
    for fetch in (
        lambda: list_files("a/b", AT_ONCE),
        lambda: fetch_model("a/b", None, []),
    ):
        with pytest.raises(HubError, match="the proxy in ALL_PROXY.* cannot be used"):
            fetch()
    assert not at_hub.requests
