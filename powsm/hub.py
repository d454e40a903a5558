"""The Hugging Face hub: data sets, models, patience with faults, plain words.

`huggingface_hub` gives the session, the token, the offline switch and the errors.
"""

import contextlib
import email.utils
import errno
import hashlib
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from threading import Event

import httpx
from huggingface_hub import HfApi, constants, get_session, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from powsm.errors import PowsmError

_SHARD = re.compile(r"([^/]+)_shar/([^/]+)/[^/]+")  # anything else is no speech
_NONE_LEFT = re.compile(r";\s*r=0\s*;\s*t=(\d+)")  # of RateLimit: "api";r=0;t=55
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP states worth another try

logger = logging.getLogger(__name__)


class HubError(PowsmError):
    """A transfer that did not bring all its files; one line, says what to do."""


class IncompleteError(PowsmError):
    """The connection ended well, but before the end of the file."""


class CorruptedError(PowsmError):
    """All bytes are there, and they are not those of the hash."""


class StoppedError(Exception):
    """The download is to end; only seen inside a worker."""


_PASSING_ERRORS = (
    IncompleteError,
    CorruptedError,
    httpx.NetworkError,
    httpx.TimeoutException,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
)

# What asking the hub may raise; `explain` has the words for it.
FAULTS = (httpx.HTTPError, OfflineModeIsEnabled)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set on the hub.

    Attributes:
        repository: "anyspeech/ipapack_plus_1".
        revision: commit that it was listed at.
        path: "<corpus>_shar/<split>/<name>", there and here.
        size: bytes.
        hash: SHA-256 (64 digits) from large file storage, else git's SHA-1 (40).
    """

    repository: str
    revision: str
    path: str
    size: int
    hash: str

    @property
    def corpus(self) -> str:
        return self.path.split("/")[0].removesuffix("_shar")

    @property
    def split(self) -> str:
        return self.path.split("/")[1]

    def hasher(self):
        """A fresh digest of hashlib, of the kind of `hash`."""
        if len(self.hash) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size)

    def part(self, folder: Path) -> Path:
        """Where its bytes are gathered. Those of another version have another name."""
        path = folder / self.path
        return path.with_name(f".{path.name}.{self.hash[:12]}.part")


@dataclass(frozen=True)
class Patience:
    """How a passing fault is met: pauses that double, with jitter, and an end.

    Attributes:
        tries: in a row that bring nothing new.
        first_pause_s: the pause after the first try, before jitter.
        longest_pause_s: no pause of our own is longer, before jitter.
        longest_wait_s: a server that asks for more is not waited for.
    """

    tries: int = 8
    first_pause_s: float = 5.0
    longest_pause_s: float = 600.0
    longest_wait_s: float = 3600.0

    def pause_s(self, number: int, err: Exception) -> float:
        """Seconds after try `number`, from 1; no less than the server asks for."""
        pause = min(self.first_pause_s * 2 ** (number - 1), self.longest_pause_s)
        # so that not all workers, and not all users, come back at once
        return max(pause * random.uniform(0.5, 1.5), asked_wait_s(err))

    def may_pass(self, err: Exception) -> bool:
        """Whether another try may do better."""
        if isinstance(err, HfHubHTTPError):
            status = err.response.status_code
            return status in _PASSING and asked_wait_s(err) <= self.longest_wait_s
        return isinstance(err, _PASSING_ERRORS)

    def persist[T](
        self,
        attempt: Callable[[], T],
        about: str,
        stop: Event,
        reached: Callable[[], int] = lambda: 0,
    ) -> T:
        """What `attempt` returns, once it does.

        Args:
            reached: how far the attempts have come. The tries are counted anew when it
                is further than ever before, so it needs an upper bound.

        Raises:
            StoppedError: `stop` was set in a pause.
            Exception: the last one of `attempt`, or the first that cannot pass.
        """
        furthest, number = reached(), 0
        while True:
            try:
                return attempt()
            except Exception as err:
                number += 1
                if (now := reached()) > furthest:
                    furthest, number = now, 1
                if number >= self.tries or not self.may_pass(err):
                    raise
                pause_s = self.pause_s(number, err)
                logger.warning(
                    "%s: %s; try %d of %d in %.0f s",
                    *(about, cause(err), number + 1, self.tries, pause_s),
                )
                if stop.wait(pause_s):
                    raise StoppedError from err


def asked_wait_s(err: Exception) -> float:
    """Seconds that a server asks to stay away, by Retry-After or RateLimit; else 0."""
    if not isinstance(err, HfHubHTTPError):
        return 0.0
    headers = err.response.headers
    limit = _NONE_LEFT.search(headers.get("RateLimit", ""))
    wait_s = float(limit[1]) if limit else 0.0
    if after := headers.get("Retry-After", "").strip():
        if after.isdigit():
            return max(wait_s, float(after))
        with contextlib.suppress(ValueError):  # then it is no date either
            date = email.utils.parsedate_to_datetime(after)
            return max(wait_s, date.timestamp() - time.time())
    return wait_s


def list_files(
    repository: str, patience: Patience, stop: Event | None = None
) -> list[RemoteFile]:
    """Shards of a data set at its newest commit; files beside them are left out.

    Raises:
        HubError: the hub cannot be asked, or refuses.
    """
    check_proxy()
    api = f"{constants.ENDPOINT}/api/datasets/{repository}"

    def get(url: str) -> httpx.Response:
        def once() -> httpx.Response:
            timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
            answer = get_session().get(url, headers=build_hf_headers(), timeout=timeout)
            hf_raise_for_status(answer)
            return answer

        return patience.persist(once, repository, stop or Event())

    files = []
    try:
        revision = get(f"{api}/revision/main").json()["sha"]
        url = f"{api}/tree/{revision}?recursive=true"
        while url:
            page = get(url)
            for entry in page.json():
                path = entry["path"]
                if entry["type"] == "file" and _SHARD.fullmatch(path):
                    if ".." in path.split("/"):
                        raise HubError(f"{repository}: {path} leads out of it")
                    what = (entry["size"], (entry.get("lfs") or entry)["oid"])
                    files.append(RemoteFile(repository, revision, path, *what))
            url = _next_page(page, repository)
    except FAULTS as err:
        raise HubError(explain(err, repository)) from err
    except (LookupError, TypeError, JSONDecodeError) as err:
        raise HubError(
            f"{repository}: {constants.ENDPOINT} does not answer as a hub does: look "
            "at HF_ENDPOINT and the proxy"
        ) from err
    return files


def _next_page(page: httpx.Response, repository: str) -> str | None:
    """The address in the header `Link`, which may not lead the token elsewhere.

    Raises:
        HubError: it names another host, port or scheme than the page came from.
    """
    if (link := page.links.get("next", {}).get("url")) is None:
        return None
    here, there = page.request.url, page.request.url.join(link)
    if (there.scheme, there.host, there.port) != (here.scheme, here.host, here.port):
        raise HubError(
            f"{repository}: the list of its files goes on at {there.host}, not at "
            f"{here.host}: it is not asked, so that no token leaves the hub; look at "
            "HF_ENDPOINT and the proxy"
        )
    return str(there)


@contextlib.contextmanager
def open_file(file: RemoteFile, start: int) -> Iterator[httpx.Response]:
    """The answer with the bytes of a file, from byte `start` on if the hub can.

    Raises:
        httpx.HTTPError, OfflineModeIsEnabled: as they come, see `FAULTS`.
    """
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    place = {"repo_type": "dataset", "revision": file.revision}
    url = hf_hub_url(file.repository, file.path, **place)
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as answer:
        hf_raise_for_status(answer)
        yield answer


def cause(err: Exception) -> str:
    """An error in a few words, without the client's pages of advice."""
    if isinstance(err, HfHubHTTPError):
        return f"the hub answers {err.response.status_code}"
    return str(err) or type(err).__name__


def explain(err: Exception, about: str) -> str:
    """One line: what went wrong with a data set or file, and what to do."""
    again = "run the stage again, it goes on where it was"
    if isinstance(err, OfflineModeIsEnabled):
        return (
            f"{about}: HF_HUB_OFFLINE is set; unset it or, with a complete copy, point "
            "IPAPACK_PLUS to it and begin at --stage 1"
        )
    if isinstance(err, HfHubHTTPError):
        status = err.response.status_code
        login = "log in with `hf auth login` or set HF_TOKEN"
        advice = {
            401: f"it is private or gated, or there is no such thing; {login}",
            403: f"no access: ask for it on the data set's page, and {login}",
            404: "there is no such thing on the hub; look at the name (--repositories)",
            429: f"too many requests; lower --nj, {login}, and {again}",
        }.get(status, again)
        return f"{about}: {cause(err)}: {advice}"
    if isinstance(err, httpx.TransportError):
        return (
            f"{about}: the connection to {constants.ENDPOINT} fails ({cause(err)}): "
            f"look at network and proxy, and {again}"
        )
    if isinstance(err, BlockingIOError):
        return f"{about}: another process is fetching it: wait for that one's end"
    if isinstance(err, OSError) and err.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"{err.filename}: no space left: make room and {again}"
    return f"{about}: {cause(err)}: {again}"


def check_proxy() -> None:
    """Refuse a proxy that the client cannot use, before it is asked for anything.

    Raises:
        HubError: names the variables of the environment.
    """
    try:
        httpx.Client().close()
    except (ImportError, ValueError) as err:
        names = sorted({n.upper() for n in os.environ if n.lower().endswith("_proxy")})
        raise HubError(
            f"the proxy in {' '.join(names)} cannot be used ({err}); set an http:// "
            "or socks5h:// one that is there, or unset it"
        ) from err


def fetch_model(repo: str, revision: str | None, patterns: list[str]) -> Path:
    """A snapshot of a model with the files that match; its name is the commit.

    Raises:
        HubError: there is no such model or revision, or it cannot be had.
    """
    check_proxy()
    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=patterns, library_name="espnet"
        )
    except (httpx.HTTPError, LocalEntryNotFoundError) as err:
        raise HubError(_why_not_fetched(err, repo, revision)) from err
    return Path(folder)


def _why_not_fetched(err: Exception, repo: str, revision: str | None) -> str:
    hub = constants.ENDPOINT
    if isinstance(err, RevisionNotFoundError):
        return f"{repo} has no revision {revision}"
    if isinstance(err, GatedRepoError):
        return f"access to {hub}/{repo} must be asked for there; then set HF_TOKEN"
    if isinstance(err, RepositoryNotFoundError):
        return (
            f"no such folder here, and no model {repo} at {hub}; a private one needs "
            "HF_TOKEN"
        )
    if isinstance(err, HfHubHTTPError):
        status = err.response.status_code
        advice = "is HF_TOKEN right?" if status in (401, 403) else "try again later"
        return f"{hub} answered {status}; {advice}"
    if isinstance(err, LocalEntryNotFoundError):
        return (
            f"no such folder here, not in the cache {constants.HF_HUB_CACHE}, and "
            f"{hub} cannot be reached"
        )
    return f"the transfer from {hub} failed ({err}); try again, it goes on where it was"


def upload_model(folder: Path, repo: str, *, private: bool = False) -> str:
    """Make the repository if it is missing, and commit a folder in one go.

    Returns:
        The address of the commit.

    Raises:
        HubError: the Hub refuses, or cannot be reached.
    """
    api = HfApi(library_name="espnet")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=f"Upload {folder.name}"
        )
    except HFValidationError as err:
        raise HubError(f"--hf_repo {repo}: not a name like user/model") from err
    except HfHubHTTPError as err:
        raise HubError(_why_not_uploaded(err, repo)) from err
    except httpx.TransportError as err:
        raise HubError(
            f"{repo}: the connection to {constants.ENDPOINT} failed "
            f"({type(err).__name__}); run stage 15 again: files that arrived whole are "
            "not sent again"
        ) from err
    return str(done.commit_url)


def _why_not_uploaded(err: HfHubHTTPError, repo: str) -> str:
    status = err.response.status_code
    advice = {
        401: "set HF_TOKEN, or log in with `hf auth login`",
        403: f"the token may not write to {repo}: it needs the write permission there",
        404: f"there is no {repo.partition('/')[0]} that the token may write for",
        413: "a file is larger than the Hub takes",
        429: "too many requests; try again in an hour",
    }.get(status, "try again later: files that arrived whole are not sent again")
    return f"{repo}: {constants.ENDPOINT} answered {status}; {advice}"
