#!/usr/bin/env python3
"""What becomes of G2P dictionaries: phones that differ between policies, marks lost.

Usage: segmentation.py FILE.tsv... [--other released] [--top 30] [--per_file 0]

Prints one JSON line. A file has words and their IPA with tabs between, as WikiPron's;
spaces in the IPA are taken out. Words whose phones differ between the policies are
aligned, and the most frequent changes are shown with an example, to be looked at.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from pathlib import Path

from powsm.files.text import open_text
from powsm.formatting import code_points
from powsm.phones.normaliser import POLICIES, Normaliser

_PHONETIC = ("diacritic", "unknown")  # kinds of what has a sound


def read_ipa(path: Path, at_most: int = 0) -> list[str]:
    """IPA of the words of a file; of more than `at_most` every n-th, 0 takes all."""
    with open_text(path) as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    words = [row[1].replace(" ", "") for row in rows if len(row) > 1]
    return words[:: max(1, len(words) // at_most)] if at_most else words


def changes(old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Runs of phones that differ, before and after."""
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind != "equal":
            yield " ".join(old[i:j]), " ".join(new[k:m])


def measure(words: Iterable[str], other: str = "released", top: int = 30) -> dict:
    """Compare `strict` with another policy on words, and count what `strict` loses."""
    strict, old = Normaliser(english_rules=False), Normaliser(other, False)
    counts: Counter[str] = Counter()
    changed: Counter[tuple[str, str]] = Counter()
    lost: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for word in words:
        segments, before = strict.segment(word), old.segment(word).phones
        drops = [drop for drop in segments.dropped if drop.kind in _PHONETIC]
        counts["words"] += 1
        counts["phones"] += len(segments.phones)
        counts["losing"] += bool(drops)
        counts["changed"] += segments.phones != before
        for drop in drops:
            lost[drop.char, drop.kind] += 1
            examples.setdefault((drop.char, drop.kind), word)
        for change in changes(before, segments.phones):
            changed[change] += 1
            examples.setdefault(change, word)
    n_words = max(1, counts["words"])
    return {
        "words": counts["words"],
        "phones": counts["phones"],
        f"words_unlike_{other}": round(counts["changed"] / n_words, 4),
        "words_losing_marks": round(counts["losing"] / n_words, 4),
        "changes": [
            [n, *change, examples[change]] for change, n in changed.most_common(top)
        ],
        "lost": [
            [n, code_points(char), kind, examples[char, kind]]
            for (char, kind), n in lost.most_common(top)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.tsv")
    parser.add_argument("--other", choices=POLICIES, default="released")
    parser.add_argument("--top", type=int, default=30, help="changes and marks shown")
    parser.add_argument("--per_file", type=int, default=0, help="words taken; 0: all")
    options = parser.parse_args()
    words = (w for file in options.files for w in read_ipa(file, options.per_file))
    result = measure(words, options.other, options.top)
    json.dump(result, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
