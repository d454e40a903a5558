"""The loopback hub, as the real client of the hub and a plain one see it."""

import httpx
import pytest
from hub_server import TOKEN, git_sha1, sha256
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)

TAR = bytes(range(256)) * 40
CARD = b"# A corpus\n"
NAME = "anyspeech/ipapack_plus_1"
TAR_PATH = "cv_shar/train/recording.000000.tar"


@pytest.fixture
def filled(hub, monkeypatch):
    """The hub with one data set of two files, and a client that takes it over HTTP."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hub.add_repo(NAME, {"README.md": CARD, TAR_PATH: TAR})
    return hub


def get(hub, *, start: int | None = None) -> httpx.Response:
    headers = {} if start is None else {"Range": f"bytes={start}-"}
    url = f"{hub.url}/datasets/{NAME}/resolve/main/{TAR_PATH}"
    return httpx.get(url, headers=headers, follow_redirects=True)


def test_tree_states_sizes_and_hashes(filled):
    api = HfApi(endpoint=filled.url)
    card, tar = api.list_repo_tree(NAME, repo_type="dataset", recursive=True)
    assert (card.path, card.size, card.lfs) == ("README.md", len(CARD), None)
    # git hash-object on a file with "# A corpus\n"
    assert card.blob_id == "57532cdcac28a6e89dbafad2fece8347f804458a"
    assert (tar.path, tar.size, tar.lfs.sha256) == (TAR_PATH, 10_240, sha256(TAR))


def test_tree_of_many_files_comes_in_pages(hub):
    hub.add_repo("a/b", {f"cv_shar/train/{n:06d}.tar": b"" for n in range(250)})
    tree = HfApi(endpoint=hub.url).list_repo_tree("a/b", repo_type="dataset")
    assert len(list(tree)) == 250
    assert hub.count("GET /api/datasets/a/b/tree/main") == 3


def test_snapshot_is_what_was_put_in(filled, tmp_path):
    snapshot_download(
        NAME, repo_type="dataset", endpoint=filled.url, local_dir=tmp_path, token=TOKEN
    )
    assert (tmp_path / "README.md").read_bytes() == CARD
    assert (tmp_path / TAR_PATH).read_bytes() == TAR
    assert filled.served == {"README.md": len(CARD), TAR_PATH: len(TAR)}


def test_token_does_not_leave_for_the_other_host(filled, tmp_path):
    hf_hub_download(
        NAME,
        TAR_PATH,
        repo_type="dataset",
        endpoint=filled.url,
        local_dir=tmp_path,
        token=TOKEN,
    )
    sent_to = {
        request.path.split("/")[1]: request.headers.get("authorization")
        for request in filled.requests
    }
    assert sent_to == {"datasets": f"Bearer {TOKEN}", "cdn": None}


def test_range_is_served_alone(filled):
    answer = get(filled, start=10_000)
    assert answer.status_code == 206
    assert answer.content == TAR[10_000:]
    assert answer.headers["Content-Range"] == "bytes 10000-10239/10240"
    assert filled.served[TAR_PATH] == 240
    assert get(filled, start=10_240).status_code == 416


def test_cut_connection_can_go_on_from_there(filled):
    filled.fail("x-not-this", cut_at=1)
    filled.fail(TAR_PATH, cut_at=4_000)
    with pytest.raises(httpx.RemoteProtocolError):
        get(filled)
    assert get(filled, start=4_000).content == TAR[4_000:]
    assert filled.served[TAR_PATH] == len(TAR)


def test_stall_ends_with_the_clients_patience(filled):
    filled.fail(TAR_PATH, stall_at=100)
    url = f"{filled.url}/datasets/{NAME}/resolve/main/{TAR_PATH}"
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(url, follow_redirects=True, timeout=0.5)


@pytest.mark.parametrize(
    ("bend", "wrong"),
    [
        ({"flip_at": 5_000}, TAR[:5_000] + bytes([TAR[5_000] ^ 255]) + TAR[5_001:]),
        ({"end_at": 9_999}, TAR[:9_999]),
        ({"ignore_range": True}, TAR),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bent_file_looks_well_served(filled, bend, wrong):
    filled.fail(TAR_PATH, **bend)
    answer = get(filled, start=0)
    assert answer.status_code == (200 if "ignore_range" in bend else 206)
    assert answer.content == wrong
    assert get(filled).content == TAR


def test_status_comes_as_often_as_asked_with_its_headers(filled):
    filled.fail("GET /datasets", status=429, headers={"Retry-After": "7"}, times=2)
    for _ in range(2):
        assert get(filled).status_code == 429
        assert filled.requests[-1].status == 429
    assert get(filled).content == TAR


def test_errors_are_those_of_the_hub(filled):
    api = HfApi(endpoint=filled.url, token=False)
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("no/such")
    filled.fail("/api/", status=403, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(GatedRepoError):
        api.dataset_info(NAME)
    filled.fail("/api/", status=503)
    with pytest.raises(HfHubHTTPError, match="503"):
        api.dataset_info(NAME)
    assert api.dataset_info(NAME).sha == filled.repos[f"datasets/{NAME}"].sha


def test_private_repository_needs_the_token(hub):
    hub.add_repo("a/b", private=True)
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token=False).dataset_info("a/b")
    HfApi(endpoint=hub.url, token=TOKEN).dataset_info("a/b")


def test_stopped_hub_refuses_connections(hub):
    hub.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(hub.url)


def test_folder_is_uploaded_committed_and_read_back(filled, tmp_path):
    folder = tmp_path / "model"
    (folder / "exp").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# M\n")
    (folder / "exp/model.safetensors").write_bytes(TAR)
    api = HfApi(endpoint=filled.url, token=TOKEN)
    url = api.create_repo("me/model", private=True)
    assert (url.repo_id, url.repo_type) == ("me/model", "model")
    api.create_repo("me/model", exist_ok=True)
    commit = api.upload_folder(
        repo_id="me/model", folder_path=folder, commit_message="Add the model"
    )
    repo = filled.repos["models/me/model"]
    assert repo.commits == ["Add the model"]
    assert commit.oid == repo.sha
    assert repo.files["exp/model.safetensors"] == TAR
    assert repo.files["README.md"] == (folder / "README.md").read_bytes()
    # the same again changes nothing
    api.upload_folder(repo_id="me/model", folder_path=folder)
    assert repo.commits == ["Add the model"]

    back = snapshot_download(
        "me/model", endpoint=filled.url, token=TOKEN, local_dir=tmp_path / "back"
    )
    assert (tmp_path / "back/exp/model.safetensors").read_bytes() == TAR
    assert back == str(tmp_path / "back")


def test_upload_without_the_token_is_refused(filled, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    api = HfApi(endpoint=filled.url, token="hf_another")
    with pytest.raises(HfHubHTTPError, match="401"):
        api.create_repo("me/model")
    with pytest.raises(HfHubHTTPError, match="401"):
        api.upload_folder(repo_id=NAME, repo_type="dataset", folder_path=tmp_path)
    assert git_sha1(b"a") == "2e65efe2a145dda7ee51d1741299f848e5bf752e"
