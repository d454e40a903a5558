"""Train, dev and test of a small corpus: stable, and without a text in two of them."""

import hashlib
from collections.abc import Iterable

from powsm.corpora.small.text_faults import text_key

SPLITS = ("train", "dev", "test")
DEV_SHARE = 0.05
TEST_SHARE = 0.05


def split_prompts(prompts: Iterable[tuple[str, str]], seed: int) -> dict[str, str]:
    """Assign prompts to train, dev and test.

    A prompt goes to one split in all its languages, and so do all prompts that share a
    text (see `text_key`) with it in any language: they are one group. A group's place
    depends on the seed and on the first of its ids alone, so it stays when other
    prompts come or go; about `DEV_SHARE` and `TEST_SHARE` of the groups land there.

    Args:
        prompts: (prompt_id, text) pairs, in any order; ids repeat over languages.
        seed: another seed is another split.

    Returns:
        Prompt id -> "train", "dev" or "test".
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    ids = set()
    for prompt_id, text in prompts:
        ids.add(prompt_id)
        # of texts without letters, such as digits, each is its own
        key = text_key(text) or text
        parent[root(("id", prompt_id))] = root(("text", key))
    first: dict[tuple[str, str], str] = {}
    for prompt_id in sorted(ids):
        first.setdefault(root(("id", prompt_id)), prompt_id)
    return {i: _split_of(first[root(("id", i))], seed) for i in sorted(ids)}


def _split_of(prompt_id: str, seed: int) -> str:
    digest = hashlib.sha256(f"{seed} {prompt_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
    if place < TEST_SHARE:
        return "test"
    return "dev" if place < TEST_SHARE + DEV_SHARE else "train"
