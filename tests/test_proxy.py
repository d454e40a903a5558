"""Downloads through a SOCKS proxy, where it alone knows the name of the hub."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from socks_server import SocksServer

LOCAL = Path(__file__).parents[1] / "local"
SHARD, WEIGHTS = bytes(range(251)) * 1200, b"weights " * 30_000
MODEL = (
    "from powsm.hub import fetch_model; "
    "print(fetch_model('espnet/powsm', None, ['exp/*.pth']))"
)


@pytest.fixture
def through(hub, tmp_path):
    """The environment in which the hub is reached through a proxy, and that proxy."""
    hub.add_repo("a/b", {"cv_shar/train/recording.000000.tar": SHARD})
    hub.add_repo("espnet/powsm", {"exp/x.pth": WEIGHTS}, repo_type="model")
    hub.cdn_url = f"http://cdn.test:{hub.port}/cdn"
    with SocksServer() as proxy:
        env = os.environ | hub.env | {"HF_HOME": str(tmp_path / "home")}
        env |= {"ALL_PROXY": proxy.url, "HF_ENDPOINT": f"http://hub.test:{hub.port}"}
        yield env, proxy


def run(env: dict[str, str], *command: object) -> str:
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_shards_come_through_a_socks_proxy(through, tmp_path):
    env, proxy = through
    script = LOCAL / "download_ipapack.py"
    out = tmp_path / "downloads"
    run(env, script, "--downloads", out, "--repositories", "a/b", "--nj", 1)
    assert (out / "cv_shar/train/recording.000000.tar").read_bytes() == SHARD
    assert set(proxy.asked) == {"hub.test", "cdn.test"}


def test_model_comes_through_a_socks_proxy(through):
    env, proxy = through
    folder = Path(run(env, "-c", MODEL).split()[-1])
    assert (folder / "exp/x.pth").read_bytes() == WEIGHTS
    assert set(proxy.asked) == {"hub.test", "cdn.test"}
