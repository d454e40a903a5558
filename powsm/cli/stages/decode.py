"""Stage 12: decode test sets with one or more profiles.

Results go to <exp>/<profile>/<set>/<task>_<decode>/hyp.jsonl. What is there and was
decoded with the same settings and weights is left alone; a run that was killed goes on
where it was. To share the work among the tasks of a job array, run it with
`--shards 0/16` to `--shards 15/16`, then once with `--merge`.
"""

import argparse
import itertools
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from powsm.cli.options import add_shared, add_shares, device, refuse_one_name
from powsm.errors import PowsmError
from powsm.files.whole import read_json

if TYPE_CHECKING:
    from powsm.decode.profile import Profile
    from powsm.decode.recogniser import Recogniser
    from powsm.model.find import ModelFiles

log = logging.getLogger(__name__)

# of a set: audio, which may be cut anew under its name, and prompts
_DECODED_FROM = ("wav.scp", "utt2num_samples", "text.prev", "utt2lang")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "--exp", help="for the results")
    add_shared(parser, "--model", "--model_file", "--dump", "--profiles", "--sets")
    skip = "end well although recordings could not be read: their output is empty"
    parser.add_argument("--skip_bad_audio", action="store_true", help=skip)
    add_shared(parser, "--device")
    add_shares(parser, "batch")


def run(options: argparse.Namespace) -> None:
    refuse_one_name(options.profiles)
    from powsm.decode.profile import Profile
    from powsm.files.whole import naming
    from powsm.model.find import find_model

    rank = int(os.environ.get("RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    profiles = [Profile.load(path) for path in options.profiles]
    model = find_model(options.model or options.exp, options.model_file)
    log.info("%s", model.describe())
    if world_size > 1:
        import torch

        # a rank waits for the slowest, which may have hours of audio more
        torch.distributed.init_process_group("gloo", timeout=timedelta(days=1))
    with naming(options.exp):
        decode(options, profiles, model, (rank, world_size))
    if rank == 0 and not (options.skip_bad_audio or options.shards):
        check_audio(options, profiles)


def decode(options, profiles: list["Profile"], model: "ModelFiles", ranks) -> None:
    """Decode this rank's or job's share of what is not current, and merge."""
    from powsm.files.current import is_current
    from powsm.files.whole import sha256_file
    from powsm.score.decoded import DONE_FILE, decoded_folder

    weights_hash = sha256_file(model.weights_file)
    if ranks[0] == 0:
        keep_policies(model, options.exp)
        for name in options.sets:
            warn_of_other_normaliser(model, options.dump / name)
    recogniser = cache(partial(load, model, options.device))
    for profile, name in itertools.product(profiles, options.sets):
        folder = options.dump / name
        made_from = {
            "profile": profile.digest(),
            "weights": weights_hash,
            "data": [sha256_file(folder / f) for f in _DECODED_FROM],
        }
        for task in profile.tasks:
            out = decoded_folder(options.exp, profile.name, name, profile.tag(task))
            if is_current(out / DONE_FILE, "decoded", made_from):
                log.info("%s is current", out)
                continue
            what = (profile, task, folder, out)
            decode_task(options, recogniser, what, made_from, ranks)


def load(model: "ModelFiles", wanted: str | None) -> "Recogniser":
    from powsm.decode.recogniser import Recogniser

    return Recogniser.load(model, device(wanted))


def decode_task(options, recogniser: Callable, what, made_from: dict, ranks) -> None:
    """Decode and merge a task of a set; PyTorch is loaded here, if anything is."""
    from powsm.model.light import import_espnet

    import_espnet()
    import torch

    from powsm.decode.batch import items
    from powsm.decode.dump_set import decode_set, merge
    from powsm.files.current import write_record
    from powsm.score.decoded import DONE_FILE

    profile, task, folder, out = what
    rank, world_size = ranks
    if not items(folder, task):
        log.info("%s: no %s example, nothing to decode", folder, task)
        return
    if not options.merge:
        share, n_shares = options.shards or ranks
        own = {"rank": share, "world_size": n_shares}
        decode_set(recogniser(), profile, task, folder, out, **own)
    if options.shards:
        return  # merged once all have ended
    if world_size > 1:
        torch.distributed.barrier()
    if rank == 0:
        weights = made_from["weights"][:12]
        hyp = merge(folder, task, out, profile=profile, weights=weights)
        write_record(out / DONE_FILE, "decoded", made_from, [hyp])
    if world_size > 1:
        torch.distributed.barrier()


def keep_policies(model: "ModelFiles", exp: Path) -> None:
    """Let the results of another's model say how it writes, which scoring asks.

    Raises:
        PowsmError: the folder's other results were written by another text policy.
    """
    from powsm.files.datadir import NORMALISER_FILE
    from powsm.files.whole import write_json

    record = exp / NORMALISER_FILE
    if not model.normaliser:
        return
    if not record.exists():
        write_json(record, dict(model.normaliser))
        return
    theirs = read_json(record, "restore it").get("text_policy")
    if theirs != model.normaliser["text_policy"]:
        raise PowsmError(
            f"{record} has text policy {theirs}, the model writes by "
            f"{model.normaliser['text_policy']}; put its results into another --exp"
        )


def warn_of_other_normaliser(model: "ModelFiles", folder: Path) -> None:
    """Warn if a set's prompts are not spelled as those the model was trained on."""
    from powsm.files.datadir import NORMALISER_FILE

    record = folder / NORMALISER_FILE
    if not model.normaliser or not record.exists():
        return
    keys = ("policy", "text_policy")
    made_with = read_json(record, "run stage 4 again", keys=keys)
    for key in keys:
        ours, theirs = made_with[key], model.normaliser[key]
        if ours != theirs and ours != "none":
            log.warning(
                "%s was made with %s %s, the model was trained with %s: the prompts "
                "of g2p and p2g are spelled differently",
                *(folder, key, ours, theirs),
            )


def check_audio(options, profiles) -> None:
    """Raise if recordings could not be read; everything else is decoded by then."""
    from powsm.score.decoded import HYP_FILE, DecodedSet, decoded_folder

    unread = set()
    for profile, name in itertools.product(profiles, options.sets):
        for task in profile.tasks:
            out = decoded_folder(options.exp, profile.name, name, profile.tag(task))
            if (out / HYP_FILE).exists():  # else the set has nothing for this task
                rows = DecodedSet(out).records()
                unread |= {row["utt_id"] for row in rows if "error" in row}
    if unread:
        some = " ".join(sorted(unread)[:3])
        raise PowsmError(
            f"{len(unread)} recordings could not be read ({some}), all others are "
            "decoded; mend or remove them, or take their output as empty with "
            "--skip_bad_audio"
        )
