"""Builders of tests/ are importable from its sub-folders too; the `hub` of tests."""

import signal
import sys
from pathlib import Path

import pytest

# Files whose tests take minutes together, longest first: begun first, they end together
# with the many short ones on all processes.
LONGEST = (
    "recipe/test_slurm.py",
    "recipe/test_paper_recipe.py",
    "recipe/test_stages.py",
    "test_bench.py",
    "test_readme.py",
    "cli/test_decode.py",
    "test_scripts.py",
    "recipe/test_finetune_recipe.py",
    "train/test_watch.py",
    "train/test_run.py",
    "cluster/test_checks.py",
    "publish/test_pack.py",
    "recipe/test_bad_input.py",
    "model/test_s2t_ctc.py",
    "train/test_stock.py",
    "report/paper/test_reproduce_model.py",
    "train/test_dataset.py",
    "corpora/test_ipapack.py",
    "cluster/test_ranks.py",
    "test_signals.py",
    "phones/test_clusters.py",
    "train/test_weights.py",
    "cli/test_check_gpu.py",
    "report/test_report_browser.py",
    "report/test_demo.py",
    "report/test_ablation.py",
)

sys.path.insert(0, str(Path(__file__).parent))

from hub_server import HubServer  # noqa: E402


@pytest.fixture
def hub():
    """An empty Hugging Face hub on loopback: see tests/hub_server.py."""
    with HubServer() as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; pytest-xdist hands files out in this order."""
    rank = {Path(__file__).parent / name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(LONGEST)))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts its jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup starts them
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _signals_are_given_back():
    """What a test runs in this process must not keep the signals: others fork here."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    after = [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    assert after == before
