#!/usr/bin/env python3
"""What a low level costs in PFER, and what `level: usual` gives back: a line a case.

Every recording of a set is scaled by a gain and decoded by the best path of the CTC
head, at its own level and at the usual one.

    scripts/bench/level.py --exp exp/x --set dump/raw/test_asterisk
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from powsm.audio import read_audio
from powsm.decode.profile import SHIPPED
from powsm.decode.recogniser import Recogniser
from powsm.decode.transcribe import Job, transcribe
from powsm.score.decoded import DumpSet
from powsm.score.metrics import score_phones
from powsm.tasks import PHONES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exp", required=True, help="folder or archive of a model")
    parser.add_argument("--set", type=Path, required=True, help="of stage 4")
    parser.add_argument("--gains", type=float, nargs="+", default=[1.0, 0.1, 0.01])
    options = parser.parse_args()
    for gain, level, scores in measure(options.exp, options.set, options.gains):
        pfer = round(scores.value("PFER"), 2)
        print(json.dumps({"gain": gain, "level": level, "PFER": pfer}), flush=True)


def measure(exp: str, folder: Path, gains: list[float]):
    """Yield (gain, level, scores) of each case."""
    import torch

    recogniser = Recogniser.load(exp)
    truth = DumpSet(folder)
    speech = {u: torch.from_numpy(read_audio(a)) for u, a in truth.locations.items()}
    for gain in gains:
        for level in ("own", "usual"):
            profile = replace(SHIPPED["ctc_greedy"], level=level)
            jobs = [Job(utt_id, one * gain) for utt_id, one in speech.items()]
            records = transcribe(recogniser, profile, "pr", jobs)
            hyp = {record["utt_id"]: record["text"] for record in records}
            yield gain, level, score_phones(hyp=hyp, ref=truth.references(PHONES))


if __name__ == "__main__":
    main()
