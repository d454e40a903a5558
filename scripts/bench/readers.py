#!/usr/bin/env python
r"""A packed model read by other releases of ESPnet, and by PRiSM.

Each release lies in a folder of its own, beside the packages that are installed here:

    uv pip install --target espnets/202412 --no-deps espnet==202412
    uv pip install --target espnets/202402 --no-deps espnet==202402 typeguard==2.13.3
    scripts/bench/readers.py --model exp/x/packed --lang eng --readers espnets/* \
        -- *.wav

ESPnet 202402 and older need that typeguard. PRiSM is its checkout and the ESPnet that
it is to have: `--readers prism:espnets/202509`.

Prints one JSON line a reader, the installed ESPnet first: whether it loads the model,
the texts of each clip by task, and whether they are those of the installed one. Every
reader decodes by its own class, in a process of its own without `powsm`.
"""

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import soundfile

SEARCH = {"beam_size": 3, "ctc_weight": 0.3, "maxlenratio": -60.0}  # 60 tokens at most
N_WINDOW = 320_000  # samples of 20 s
# What older releases import, and no model of speech to text uses
NOT_USED = (
    *("g2p_en", "h5py", "jaconv", "jamo", "kaldiio", "opt_einsum", "pytorch_wpe"),
    *("tacotron_cleaner", "tacotron_cleaner.cleaners"),
)


def get_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a packed folder")
    parser.add_argument("--lang", required=True, help="ISO 639-3 of the clips")
    parser.add_argument("--readers", nargs="*", default=[], help="folders, see above")
    parser.add_argument("--tasks", nargs="+", help="default: all")
    parser.add_argument("clips", nargs="+", help="audio, 16 kHz, up to 20 s")
    return parser.parse_args()


def read(asked: dict) -> tuple[str, list[dict[str, str]]]:
    """Name of the reader, and its texts by task, a clip each."""
    for module in NOT_USED:
        sys.modules.setdefault(module, MagicMock())
    os.chdir(asked["model"])  # from where it names its files
    config, weights = (str(next(Path("exp").glob(x))) for x in ("*/*.yaml", "*/*.pth"))
    hear = globals()[f"read_{asked['by']}"](config, weights)
    texts = []
    for clip in asked["clips"]:
        speech, _ = soundfile.read(clip, dtype="float32")
        speech = np.pad(speech, (0, N_WINDOW - len(speech)))  # 202310 does not
        symbols = {"lang_sym": f"<{asked['lang']}>"}
        outputs = {
            task: hear(speech, text_prev=prompt, task_sym=f"<{task}>", **symbols)
            for task, prompt in asked["prompts"].items()
        }
        texts.append({task: text_of(output) for task, output in outputs.items()})
    return version("espnet"), texts


def text_of(output) -> str:
    """Text of the best hypothesis, without symbols."""
    best = output[0][0] if isinstance(output, tuple) else output[0]  # of several heads
    text = best["predicted_transcript"] if isinstance(best, dict) else best[0]
    return re.sub("<[^<>]+>", "", text).strip()


def read_ctc(config: str, weights: str):
    from espnet2.bin.s2t_inference_ctc import Speech2TextGreedySearch

    return Speech2TextGreedySearch(config, weights)


def read_attention(config: str, weights: str):
    from espnet2.bin.s2t_inference import Speech2Text

    def hear(speech, text_prev, lang_sym, task_sym):
        symbols = {"category_sym": lang_sym, "task_sym": task_sym}
        return Speech2Text(config, weights, **symbols, **SEARCH)(speech, text_prev)

    if "category_sym" in inspect.signature(Speech2Text).parameters:
        return hear  # up to 202310 symbols belong to the object
    return Speech2Text(config, weights, **SEARCH)


def read_prism(config: str, weights: str):
    from src.model.powsm.powsm_inference import build_powsm_inference

    files = {"config_file": config, "model_file": weights}
    files["stats_file"] = str(next(Path("exp").glob("*/train/feats_stats.npz")))
    files["bpemodel"] = str(next(Path("data").rglob("bpe.model")))
    model = build_powsm_inference(hf_repo=None, **files, **SEARCH)

    def hear(speech, text_prev, **symbols):
        """No prompt for `<na>`, which it would take for two unknown tokens."""
        return model(speech, text_prev=text_prev.replace("<na>", "") or None, **symbols)

    return hear


def ask(reader: str, asked: dict) -> dict:
    """What a reader answers; `loads` is false where it fails, with `why`."""
    folders = [Path(p).resolve() for p in reader.split(":") if p]
    if any((folder / "src/model/powsm").exists() for folder in folders):
        asked = asked | {"by": "prism"}
    command = [sys.executable, __file__, "--request", json.dumps(asked)]
    env = os.environ | {"PYTHONPATH": ":".join(map(str, folders))}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        why = " ".join(done.stderr.strip().splitlines()[-1:])
        return {"reader": reader, "loads": False, "why": why}
    espnet, texts = json.loads(done.stdout.splitlines()[-1])
    return {"reader": reader, "espnet": espnet, "loads": True, "texts": texts}


def main() -> None:
    if sys.argv[1:2] == ["--request"]:
        print(json.dumps(read(json.loads(sys.argv[2]))))
        return
    from powsm.tasks import TASKS

    args = get_args()
    config = next(args.model.glob("exp/*/config.yaml")).read_text("utf-8")
    asked = {
        "model": str(args.model.resolve()),
        "by": "ctc" if "\nmodel: espnet_ctc\n" in config else "attention",
        "lang": args.lang,
        "clips": [str(Path(clip).resolve()) for clip in args.clips],
        "prompts": {name: TASKS[name].sample for name in args.tasks or TASKS},
    }
    ours = ask("", asked)
    for reader in ["", *args.readers]:
        answer = ask(reader, asked) if reader else ours
        same = answer["loads"] and answer["texts"] == ours.get("texts")
        print(json.dumps(answer | {"same_texts": same}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
