#!/usr/bin/env python3
"""Decode a clip with stock ESPnet alone: a model as it is, and its archive.

Stage 14 runs it. Prints one JSON line with `unpacked` and `packed`: what they say to
each task, and under `phonemize` what `espnet phonemize --model ARCHIVE` prints, beside
what the unpacked model says at the settings of that command.
"""

import argparse
import contextlib
import io
import json
import sys

sys.modules["powsm"] = None  # importing it fails, as where it is not installed

import soundfile  # noqa: E402
from espnet2.bin.cli import main as espnet  # noqa: E402
from espnet2.bin.cli import phones  # noqa: E402
from espnet2.bin.s2t_inference import Speech2Text  # noqa: E402

PROMPTS = {"pr": "<na>", "asr": "<na>", "g2p": "tea", "p2g": "/t//i/"}
SEARCH = {"beam_size": 2, "ctc_weight": 0.3, "maxlenratio": -30.0}  # 30 tokens at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("config", "weights", "archive", "clip", "lang"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    speech, _ = soundfile.read(options.clip, dtype="float32")

    def outputs(model: Speech2Text) -> dict[str, str]:
        said = {}
        for task, prompt in PROMPTS.items():
            symbols = {"lang_sym": f"<{options.lang}>", "task_sym": f"<{task}>"}
            said[task] = model(speech, prompt, **symbols)[0][0]
        return said

    unpacked = outputs(Speech2Text(options.config, options.weights, **SEARCH))
    plain = Speech2Text(options.config, options.weights)
    symbols = {"lang_sym": f"<{options.lang}>", "task_sym": "<pr>"}
    unpacked["phonemize"] = phones(plain(speech, **symbols)[0][3])
    packed = outputs(Speech2Text.from_pretrained(options.archive, **SEARCH))
    command = ["phonemize", options.clip, "--model", options.archive]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = espnet([*command, "--language", options.lang, "--device", "cpu"])
    if status:
        raise SystemExit(f"espnet {' '.join(command)} ends with status {status}")
    packed["phonemize"] = printed.getvalue().strip()
    print(json.dumps({"unpacked": unpacked, "packed": packed}, ensure_ascii=False))


if __name__ == "__main__":
    main()
