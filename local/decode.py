#!/usr/bin/env python3
"""Stage 12: decode test sets with one or more profiles.

Results go to <exp>/<profile>/<set>/<task>_<decode>/hyp.jsonl. What is there and was
decoded with the same settings and weights is left alone.
"""

import argparse
import json
import logging
import os
from pathlib import Path

import torch

from powsm.decode import LID, Profile, Recogniser, decode_set, merge
from powsm.files import atomic_write, sha256_file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--exp", type=Path, required=True, help="experiment folder")
    parser.add_argument("--model_file", type=Path, help="weights; default the average")
    parser.add_argument("--dump", type=Path, required=True, help="dump/raw")
    parser.add_argument("--profiles", type=Path, nargs="+", required=True, help="YAML")
    parser.add_argument("--sets", nargs="+", required=True, help="folders in --dump")
    parser.add_argument("--device", default=None, help="default: cuda if there is one")
    options = parser.parse_args()
    rank = int(os.environ.get("RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.ERROR, format="%(message)s"
    )
    logging.getLogger("root").setLevel(logging.INFO)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda":
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
    try:
        profiles = [Profile.load(path) for path in options.profiles]
        weights = options.model_file or sorted(options.exp.glob("valid.*.ave.pth"))[0]
        run(options, profiles, weights, device, rank, world_size)
    except (ValueError, OSError, IndexError) as err:
        raise SystemExit(f"decode.py: {err}") from err


def run(options, profiles, weights, device, rank, world_size) -> None:
    recogniser = None
    weights_hash = sha256_file(weights)
    for profile in profiles:
        for name in options.sets:
            for task in profile.tasks:
                tag = task if task == LID else f"{task}_{profile.decode}"
                out = options.exp / profile.name / name / tag
                made_from = {"profile": profile.digest(), "weights": weights_hash}
                done = out / "done.json"
                if done.exists() and json.loads(done.read_text()) == made_from:
                    logging.info("%s is current", out)
                    continue
                if recogniser is None:
                    recogniser = Recogniser.load(options.exp, weights, device)
                folder = options.dump / name
                decode_set(
                    recogniser,
                    profile,
                    task,
                    folder,
                    out,
                    rank=rank,
                    world_size=world_size,
                )
                if world_size == 1:
                    merge(folder, task, out)
                    with atomic_write(done) as file:
                        json.dump(made_from, file)


if __name__ == "__main__":
    main()
