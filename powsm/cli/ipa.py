"""Segment IPA into phones, with their features and what was left out and why.

    powsm ipa "ˈwɔtɚ"
    powsm ipa --policy released --lang eng "tɑp"
    echo "pʰɔm" | powsm ipa -

A line a phone: its number, the phone, its code points, its features in PanPhon; then a
line for each character that is in no phone. The status is 1 if one is not known.
"""

import argparse
import sys

from powsm.errors import PowsmError
from powsm.formatting import code_points


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("text", help="IPA, or - for standard input")
    add("--policy", default="strict", help="strict, released or powsm_fix")
    add("--lang", help="code or name; only English has rules of its own")
    add("--slashes", action="store_true", help="only the form of the tokens: /p//a/")


def run(options: argparse.Namespace) -> int:
    from powsm.languages import lang_code
    from powsm.phones.inventory import signed_features
    from powsm.phones.normaliser import Normaliser
    from powsm.phones.slashed import to_slashed

    lang = None
    if options.lang:
        lang = lang_code(options.lang)
        if lang is None:
            raise PowsmError(f"--lang {options.lang}: no such language; try ISO 639-3")
    text = sys.stdin.read() if options.text == "-" else options.text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise PowsmError(f"the text is not UTF-8 ({err.reason})") from err
    segmented = Normaliser(options.policy).segment(text.replace("/", " "), lang)
    if options.slashes:
        print(to_slashed(segmented.phones))
    else:
        for number, phone in enumerate(segmented.phones, 1):
            row = (phone, code_points(phone), signed_features(phone))
            print(number, *row, sep="\t")
    drops = [drop for drop in segmented.dropped if drop.kind != "space"]
    for drop in drops:
        shown = f"{drop.char!r} ({code_points(drop.char)})"
        print(
            f"left out: {shown} at {drop.position} in {drop.context!r}: {drop.kind}",
            file=sys.stderr,
        )
    if not segmented.phones:
        raise PowsmError(f"{text.strip()!r}: no phones, expected IPA")
    return int(any(drop.kind == "unknown" for drop in drops))
