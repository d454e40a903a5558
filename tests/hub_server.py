"""A Hugging Face hub on loopback, with faults that a test asks for.

It speaks what `huggingface_hub` 1.33 needs without Xet: repository information, the
tree with sizes and hashes, `resolve` (HEAD and GET, ranges, a redirect to another host
for large files), and an upload (create, preupload, LFS batch and PUT, commit).

    with HubServer() as hub:
        hub.add_repo("anyspeech/ipapack_plus_1", {"cv_shar/train/x.tar": b"..."})
        hub.fail("x.tar", cut_at=100)  # the first time, 100 bytes and the end
        run(..., env={**os.environ, **hub.env})
        assert hub.served["cv_shar/train/x.tar"] == ...
"""

import base64
import functools
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

TOKEN = "hf_loopbacktoken"  # the one that may write, and read private repositories
LFS_SUFFIXES = (".bin", ".gz", ".model", ".npz", ".pth", ".safetensors", ".tar", ".zip")
PAGE = 100  # entries of a tree in one answer; the hub gives 1,000
PLURALS = "models|datasets|spaces"


def is_lfs(path: str) -> bool:
    """Whether a file goes to large file storage, by its name alone."""
    return path.endswith(LFS_SUFFIXES)


@functools.lru_cache(maxsize=64)  # a model of gigabytes is hashed once
def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """What git calls a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """Files of a repository at its one revision, main."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    commits: list[str] = field(default_factory=list)  # their messages

    @property
    def sha(self) -> str:
        """Of the last commit; another one for other files."""
        digest = hashlib.sha1(repr(len(self.commits)).encode())
        for path, data in sorted(self.files.items()):
            digest.update(f"{path} {sha256(data)}\n".encode())
        return digest.hexdigest()

    def entry(self, path: str) -> dict:
        """A line of the tree. The oid of an LFS file is that of its pointer on the
        real hub, which nobody compares; here any other hash stands for it."""
        data = self.files[path]
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
        if is_lfs(path):
            entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
            entry["oid"] = git_sha1(sha256(data).encode())
        return entry


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that `where` is found in.

    With a status, that is the answer to whatever is asked. Without, it is a file's
    bytes that are bent, where they leave, so a redirect to them does not use it up: the
    connection ends or stalls at a position in the file, the bits of one byte are turned
    round, the file ends early though its stated length agrees, ranges are ignored.
    """

    where: str  # regular expression, for "METHOD /path?query"
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    stall_at: int | None = None
    flip_at: int | None = None
    end_at: int | None = None
    ignore_range: bool = False


NO_FAULT = Fault("", times=0)


@dataclass(frozen=True)
class Request:
    """One that has been answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int


class HubServer:
    """The hub in threads of this process.

    Attributes:
        url: what HF_ENDPOINT is to be; `env` has it with all else a client needs.
        repos: plural of the type and name ("datasets/a/b") -> files.
        requests: all so far, in the order of their answers.
        served: path of a file -> bytes of it that left; only GET counts.
        stored: sha256 -> bytes that were uploaded to large file storage.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.served: Counter[str] = Counter()
        self.stored: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.hub = self
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # the name differs, so a client takes it for another host, as a CDN is
        self.cdn_url = f"http://localhost:{self.port}/cdn"
        self.env = {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def __enter__(self) -> "HubServer":
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.05])
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        """Off line from here on: connections are refused."""
        if not self.stopping.is_set():
            self.stopping.set()  # answers that stall go on
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()

    def add_repo(
        self,
        name: str,
        files: Mapping[str, bytes] | None = None,
        *,
        repo_type: str = "dataset",
        private: bool = False,
    ) -> Repo:
        """A repository; a private one is not found without `TOKEN`."""
        repo = Repo(dict(files or {}), private)
        self.repos[f"{repo_type}s/{name}"] = repo
        return repo

    def fail(self, where: str, **settings) -> Fault:
        """Script a `Fault`; of several for a request the first that is left counts."""
        fault = Fault(where, **settings)
        self.faults.append(fault)
        return fault

    def count(self, where: str) -> int:
        """How many requests so far match, as `Fault.where` does."""
        return sum(
            bool(re.search(where, f"{r.method} {r.path}")) for r in self.requests
        )

    def next_fault(self, request: str, *, of_bytes: bool) -> Fault:
        """The first fault that is left for a request, or one that does nothing."""
        with self.lock:
            for fault in self.faults:
                fits = fault.times > 0 and (fault.status == 0) == of_bytes
                if fits and re.search(fault.where, request):
                    fault.times -= 1
                    return fault
        return NO_FAULT


class _Handler(BaseHTTPRequestHandler):
    """Routes by regular expression; a route is a method named after METHOD and what."""

    protocol_version = "HTTP/1.1"
    routes = [
        (re.compile(pattern.replace("REPO", rf"((?:{PLURALS})/[^/]+/[^/]+)")), name)
        for pattern, name in (
            (r"GET /api/REPO(?:/revision/[^/]+)?", "info"),
            (r"GET /api/REPO/tree/[^/]+", "tree"),
            (r"(?:GET|HEAD) /REPO/resolve/[^/]+/(.+)", "resolve"),
            (r"(?:GET|HEAD) /cdn/REPO/(.+)", "cdn"),
            (r"POST /api/repos/create", "create"),
            (r"POST /api/validate-yaml", "validate"),
            (r"POST /api/REPO/preupload/[^/]+", "preupload"),
            (r"POST /REPO\.git/info/lfs/objects/batch", "lfs_batch"),
            (r"PUT /lfs/(\w{64})", "lfs_put"),
            (r"POST /api/REPO/commit/[^/]+", "commit"),
        )
    ]

    @property
    def hub(self) -> HubServer:
        return self.server.hub

    def log_message(self, *_) -> None:
        """Tests look at `HubServer.requests` instead."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: value[0] for key, value in parse_qs(url.query).items()}
        self.body = b"".join(self.read_body())
        path = unquote(url.path)
        if not re.match(rf"/(api|cdn|lfs|{PLURALS})/", path):
            path = f"/models{path}"  # whose web addresses have no type in front
        fault = self.hub.next_fault(f"{self.command} {self.path}", of_bytes=False)
        if fault.status:
            return self.answer(fault.status, headers=fault.headers)
        for pattern, name in self.routes:
            if match := pattern.fullmatch(f"{self.command} {path}"):
                return getattr(self, name)(*match.groups())
        return self.refuse(404, "", f"no route for {self.command} {path}")

    do_HEAD = do_POST = do_PUT = do_GET

    def read_body(self) -> Iterator[bytes]:
        """What was sent with the request, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    # Answers

    def answer(
        self,
        status: int,
        content: object = b"",
        headers: Mapping[str, str] = MappingProxyType({}),
        fault: Fault = NO_FAULT,
    ) -> None:
        """JSON unless the content is bytes already."""
        with self.hub.lock:  # before the client can know, so that a test can count
            self.hub.requests.append(
                Request(self.command, self.path, dict(self.headers), status)
            )
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        if fault.cut_at is not None or fault.stall_at is not None:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(data)
                if fault.stall_at is not None:
                    self.wfile.flush()
                    self.hub.stopping.wait(30)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    def refuse(self, status: int, code: str, message: str) -> None:
        """An error in the hub's words, which the client turns into an exception."""
        headers = {"X-Error-Message": message}
        if code:
            headers["X-Error-Code"] = code
        self.answer(status, {"error": message}, headers)

    def may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.refuse(401, "", "Invalid credentials in Authorization header")
        return False

    def find(self, name: str, path: str = "") -> Repo | None:
        """The repository, when it is there, visible, and has the file."""
        repo = self.hub.repos.get(name)
        token = self.headers.get("Authorization", "")
        if repo is None or (repo.private and token != f"Bearer {TOKEN}"):
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif path and path not in repo.files:
            self.refuse(404, "EntryNotFound", "Entry not found")
        else:
            return repo
        return None

    # Reading

    def info(self, name: str) -> None:
        if repo := self.find(name):
            plural, name = name.split("/", 1)
            siblings = [{"rfilename": path} for path in sorted(repo.files)]
            content = {"id": name, "sha": repo.sha, "private": repo.private}
            self.answer(200, content | {"siblings": siblings, "tags": []})

    def tree(self, name: str) -> None:
        """All files below the root, in pages that a Link header joins."""
        if not (repo := self.find(name)):
            return
        entries = [repo.entry(path) for path in sorted(repo.files)]
        start = int(self.query.get("cursor", 0))
        headers = {}
        if start + PAGE < len(entries):
            query = urlencode(self.query | {"cursor": start + PAGE})
            address = f"{self.hub.url}{urlsplit(self.path).path}?{query}"
            headers["Link"] = f'<{address}>; rel="next"'
        self.answer(200, entries[start : start + PAGE], headers)

    def resolve(self, name: str, path: str) -> None:
        if not (repo := self.find(name, path)):
            return
        data = repo.files[path]
        headers = {"X-Repo-Commit": repo.sha, "X-Linked-Size": str(len(data))}
        if not is_lfs(path):
            return self.send_file(path, data, headers | {"ETag": f'"{git_sha1(data)}"'})
        headers["X-Linked-Etag"] = f'"{sha256(data)}"'
        location = f"{self.hub.cdn_url}/{name}/{path}?signature={sha256(data)[:8]}"
        return self.answer(302, headers=headers | {"Location": location})

    def cdn(self, name: str, path: str) -> None:
        """Asks for no token: the address itself is a secret on the real hub."""
        data = self.hub.repos[name].files[path]
        self.send_file(path, data, {"ETag": f'"{sha256(data)}"'})

    def send_file(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        """A file or a range of it, bent by the fault; counts what leaves."""
        fault = NO_FAULT
        if self.command == "GET":
            fault = self.hub.next_fault(f"GET {self.path}", of_bytes=True)
        start, status, size = 0, 200, len(data)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and not fault.ignore_range:
            start, status = int(wanted[1]), 206
            stop = min(size, int(wanted[2]) + 1) if wanted[2] else size
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            if start >= size:
                headers["Content-Range"] = f"bytes */{size}"
                return self.answer(416, headers=headers)
            data = data[:stop]
        if fault.flip_at is not None and fault.flip_at < len(data):
            position = fault.flip_at
            turned = bytes([data[position] ^ 0xFF])
            data = data[:position] + turned + data[position + 1 :]
        if fault.end_at is not None:
            data = data[: fault.end_at]
        headers["Content-Length"] = str(max(0, len(data) - start))
        headers["Accept-Ranges"] = "bytes"
        for position in (fault.cut_at, fault.stall_at):
            data = data[:position]  # though the length says more
        data = data[start:]
        if self.command == "GET":
            with self.hub.lock:
                self.hub.served[path] += len(data)
        return self.answer(status, data, headers, fault)

    # Writing

    def create(self) -> None:
        if not self.may_write():
            return
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
        plural = f"{wanted.get('type', 'model')}s"
        prefix = "" if plural == "models" else f"{plural}/"
        content = {"url": f"{self.hub.url}/{prefix}{name}"}
        if f"{plural}/{name}" in self.hub.repos:
            return self.answer(409, content | {"error": "It is there already"})
        private = wanted.get("visibility") == "private"
        self.hub.repos[f"{plural}/{name}"] = Repo(private=private)
        return self.answer(200, content)

    def validate(self) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, name: str) -> None:
        if not self.may_write() or not (repo := self.find(name)):
            return
        files = []
        for wanted in json.loads(self.body)["files"]:
            path = wanted["path"]
            mode = "lfs" if is_lfs(path) else "regular"
            row = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if path in repo.files:
                hashed = sha256 if mode == "lfs" else git_sha1
                row["oid"] = hashed(repo.files[path])
            files.append(row)
        self.answer(200, {"files": files})

    def lfs_batch(self, name: str) -> None:
        if not self.may_write() or not self.find(name):
            return
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            row = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.stored:
                href = f"{self.hub.url}/lfs/{wanted['oid']}"
                row["actions"] = {"upload": {"href": href}}
            objects.append(row)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if sha256(self.body) != oid:
            return self.refuse(400, "", "The content is not that of its hash")
        self.hub.stored[oid] = self.body
        return self.answer(200)

    def commit(self, name: str) -> None:
        if not self.may_write() or not (repo := self.find(name)):
            return
        changed = dict(repo.files)
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    return self.refuse(400, "", f"{value['path']} was not uploaded")
                changed[value["path"]] = self.hub.stored[value["oid"]]
            elif item["key"] == "deletedFile":
                del changed[value["path"]]
            elif item["key"] == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                changed = {p: d for p, d in changed.items() if not p.startswith(folder)}
        repo.files = changed
        repo.commits.append(message)
        url = f"{self.hub.url}/{name.removeprefix('models/')}/commit/{repo.sha}"
        return self.answer(200, {"commitUrl": url, "commitOid": repo.sha})
