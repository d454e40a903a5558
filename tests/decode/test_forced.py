"""Forced paths: equal to the search that keeps its whole table."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.functional import forced_align

from powsm.decode.forced import forced_path


def random_task(seed: int, n_frames: int, n_labels: int, n_columns: int):
    """(scores, labels) that fit."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(n_frames, n_columns)) * 3
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    labels = draw.integers(1, n_columns, n_labels)
    while n_labels + (labels[1:] == labels[:-1]).sum() > n_frames:
        labels = labels[:-1]
        n_labels -= 1
    return scores.astype(np.float32), labels


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_frames=st.integers(1, 90),
    n_labels=st.integers(1, 60),
    n_columns=st.integers(2, 6),
    small=st.integers(1, 3000),
)
def test_path_is_that_of_torchaudio(seed, n_frames, n_labels, n_columns, small):
    scores, labels = random_task(seed, n_frames, n_labels, n_columns)
    expected, _ = forced_align(torch.tensor(scores)[None], torch.tensor(labels)[None])
    assert forced_path(scores, labels, small).tolist() == expected[0].tolist()


def collapse(path):
    return [column for column, _ in itertools.groupby(path) if column]


@pytest.mark.parametrize("seed", range(20))
def test_path_is_the_best_of_all(seed):
    """Of all 3**6 paths, where torchaudio may err: many scores are equal."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(-2, 1, size=(6, 3)).astype(np.float32)
    labels = draw.integers(1, 3, 2)
    best = max(
        sum(scores[t, column] for t, column in enumerate(path))
        for path in itertools.product(range(3), repeat=6)
        if collapse(path) == labels.tolist()
    )
    for small in (1, 10_000):
        found = forced_path(scores, labels, small)
        assert collapse(found.tolist()) == labels.tolist()
        assert scores[np.arange(6), found].sum() == best


def test_memory_grows_with_time_alone():
    """20,000 frames of 8,000 labels: a whole table would take 320 MB."""
    program = (
        "import resource, numpy as np\n"
        "from powsm.decode.forced import forced_path\n"
        "forced_path(np.zeros((9, 3), np.float32), np.array([1, 2]))\n"
        "draw = np.random.default_rng(0)\n"
        "scores = draw.normal(size=(20_000, 30)).astype(np.float32)\n"
        "labels = draw.integers(1, 30, 8_000)\n"
        "def used():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = used()\n"
        "forced_path(scores, labels)\n"
        "print(used() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 60
