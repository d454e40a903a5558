"""Stage 15: upload the packed model of stage 14 to the Hugging Face Hub.

The token is taken from HF_TOKEN or from `hf auth login`, never from the command line.
"""

import argparse
import logging
from pathlib import Path

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="<exp>/packed")
    add("--hf_repo", required=True, help="user/model")
    add("--private", choices=("true", "false"), default="true", help="of a new one")


def run(options: argparse.Namespace) -> None:
    from powsm.publish.upload import upload

    is_private = options.private == "true"
    address = upload(options.folder, options.hf_repo, private=is_private)
    log.info("%s is at %s", options.folder, address)
