"""Builders of tests/ are importable from its sub-folders too; the `hub` of tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hub_server import HubServer  # noqa: E402


@pytest.fixture
def hub():
    """An empty Hugging Face hub on loopback: see tests/hub_server.py."""
    with HubServer() as server:
        yield server
