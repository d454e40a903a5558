#!/usr/bin/env python3
"""Under torchrun or in a Slurm job with --ranks: do all ranks meet and sum a number?"""

import argparse
import os
import sys

from powsm.cluster.ranks import RankError, leaving_at_errors, meet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda", action="store_true", help="on GPUs, through NCCL")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds")
    options = parser.parse_args()
    with leaving_at_errors():
        try:
            hosts = meet(cuda=options.cuda, timeout_s=options.timeout)
        except RankError as err:
            sys.exit(f"meet.py: error: {err}")
    if int(os.environ.get("RANK", 0)) == 0:  # torchrun gives all ranks one stdout
        print(f"{len(hosts)} ranks on {', '.join(dict.fromkeys(hosts))}")


if __name__ == "__main__":
    main()
