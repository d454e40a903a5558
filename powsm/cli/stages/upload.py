#!/usr/bin/env python3
"""Stage 15: upload the packed model of stage 14 to the Hugging Face Hub.

The token is taken from HF_TOKEN or from `hf auth login`, never from the command line.
"""

import argparse
import logging
from pathlib import Path

from powsm.publish.upload import upload

log = logging.getLogger("upload")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="<exp>/packed")
    add("--hf_repo", required=True, help="user/model")
    add("--private", choices=("true", "false"), default="true", help="of a new one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        is_private = options.private == "true"
        address = upload(options.folder, options.hf_repo, private=is_private)
    except (ValueError, OSError) as err:
        raise SystemExit(f"upload.py: error: {err}") from err
    log.info("%s is at %s", options.folder, address)


if __name__ == "__main__":
    main()
